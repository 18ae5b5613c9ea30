"""The demo cohort: synthetic biopsy slides in the layout of the "Grumpy Doctogres" challenge.

    from doctogres.synthetic import make_cohort
    make_cohort(Path("data/demo"), slides=100, seed=7)

No picture comes from a patient. The four subtypes differ only inside the lesion regions, so a model has to look there; a
known share of the training slides is contaminated in the same way as the challenge's, so that there is something to clean.
"""

from doctogres.synthetic.cohort import CohortSummary, make_cohort
from doctogres.synthetic.plan import LABELS, SlidePlan, plan_cohort

__all__ = ["LABELS", "CohortSummary", "SlidePlan", "make_cohort", "plan_cohort"]
