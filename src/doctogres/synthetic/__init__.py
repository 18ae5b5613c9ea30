"""The demo cohort: invented biopsy slides in the layout of the "Grumpy Doctogres" challenge.

    from doctogres.synthetic import make_cohort
    make_cohort(Path("data/demo"), slides=100, seed=7)

No picture here comes from a patient. The four subtypes differ only inside the lesion regions, so a demo has to find
them; a known share of the training slides is spoiled the way the challenge's were, so that cleaning has work to do.
"""

from doctogres.synthetic.cohort import CohortSummary, make_cohort
from doctogres.synthetic.plan import LABELS, SlidePlan, plan_cohort

__all__ = ["LABELS", "CohortSummary", "SlidePlan", "make_cohort", "plan_cohort"]
