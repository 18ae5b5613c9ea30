"""Why a slide or region was dropped, repaired or flagged: one member per reason, with its sentence and remedy.

In files a reason is text, `code: sentence`; `written` formats it and `Reason.of` reads the member back.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, Final, Self


class Reason(StrEnum):
    """A reason; as text it is its code.

    Attributes:
        sentence: a template for `str.format`.
        remedy: what the user can do, if the sentence does not already say it.
    """

    sentence: str
    remedy: str

    def __new__(cls, code: str, sentence: str, remedy: str = "") -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.sentence, member.remedy = sentence, remedy
        return member

    # Names and labels: problems found without opening a picture.
    MISSING_IMAGE = (
        "missing_image",
        "{file} does not exist, although {slide} has {has}",
        "add the picture, or remove the line from train_labels.csv",
    )
    MISSING_MASK = ("missing_mask", "{file} does not exist", "add the mask, or remove the slide")
    AMBIGUOUS_FILES = ("ambiguous_files", "{slide} has {count} {what} ({files}); keep one")
    UNSAFE_NAME = (
        "unsafe_name",
        "{slide} begins with = + - @ or has control characters, which spreadsheets and terminals take for commands",
        "rename its files and its row",
    )
    UNSUPPORTED_FORMAT = ("unsupported_format", "{file} is not one of {formats}", "export it as PNG")
    UNLABELLED = ("unlabelled", "{slide} {where} in train_labels.csv", "add its label")
    CONFLICTING_LABELS = (
        "conflicting_labels",
        "train_labels.csv lists {slide} {count} times, as {labels}",
        "keep only the correct line",
    )
    # Files that cannot be used; the sentence is the reader's.
    UNREADABLE_FILE = ("unreadable_file", "{problem}")
    UNREADABLE_IMAGE = ("unreadable_image", "{problem}")
    UNREADABLE_MASK = ("unreadable_mask", "{problem}")
    TOO_MANY_PIXELS = ("too_many_pixels", "{problem}")
    COSTLY = ("costly", "{problem}")
    COLOUR_MODE = ("colour_mode", "{problem}")
    BIT_DEPTH = ("bit_depth", "{problem}")
    UNSUPPORTED_COMPRESSION = ("unsupported_compression", "{problem}")
    SEVERAL_PAGES = ("several_pages", "{problem}")
    TRANSPARENCY = ("transparency", "{problem}")
    MASK_VALUES = ("mask_values", "{problem}")
    MASK_OUTLINES = ("mask_outlines", "{problem}")
    SIZE_MISMATCH = ("size_mismatch", "{problem}")
    EMPTY_MASK = ("empty_mask", "the mask of {slide} marks no lesion", "draw the lesion, or remove the slide")
    RARE_CLASS = (
        "rare_class",
        "the class {label} has {slides} usable slide(s) in {groups} group(s); training and testing need at least two groups",
        "add slides of the class, or keep more of them",
    )
    # Contamination.
    CARTOON_TWIN = (
        "cartoon_twin",
        "its mask is byte for byte that of {genuine}, but only {colour} (of {genuine}: {genuine_colour})",
    )
    CARTOON = ("cartoon", "only {colour}", "keep it if it is tissue")
    SLIME = (
        "slime",
        "a glossy green splat covers {share:.2%} of the picture, {in_mask:.0%} of it marked as lesion{more}",
        "repair one in your decisions, or all with slime=repair",
    )
    DUPLICATE = ("duplicate", "picture, mask and label are those of {first}, byte for byte")
    # Doubtful slides, for manual review.
    SAME_MASK = (
        "same_mask",
        "its mask is byte for byte that of {others}, and all look like tissue; check which slide the mask belongs to",
        "drop the others",
    )
    SAME_PICTURE = (
        "same_picture",
        "its picture is byte for byte that of {others}, and all look like tissue; check which slide the picture belongs to",
        "drop the others",
    )
    TWIN_UNSURE = (
        "twin_unsure",
        "its mask is byte for byte that of {others}, and the colours do not show which is tissue ({colour})",
        "drop the cartoon",
    )
    COLOUR = ("colour", "only {colour}", "drop it if it is not tissue")
    STAIN = (
        "stain",
        "only {colour}, as with {cartoons} of {readable} slides; is this stain haematoxylin and eosin?",
        "keep them if the stain is intended",
    )
    FULL_MASK = (
        "full_mask",
        "{mask} marks {share:.0%} of the picture as lesion; {hint}",
        "check whether the mask is inverted",
    )
    MASK_ON_GLASS = (
        "mask_on_glass",
        "{share:.0%} of {mask} lies on glass{hint}",
        "check whether the mask is rotated, flipped or another slide's",
    )
    MASK_ORIENTATION = ("mask_orientation", "{problem}", "save picture and mask upright, without an EXIF orientation")
    NOVEL = (
        "novel",
        "its patches are unlike those of the training slides (novelty {novelty:.2f}, where 1 is the limit); check its "
        "tissue, stain, focus and magnification",
    )
    MASK_REGIONS = (
        "mask_regions",
        "{mask} has {regions} regions; the slides that the model was trained on have at most {most}",
        "check whether the mask contains specks or is another slide's",
    )
    MASK_SCALE = (
        "mask_scale",
        "the regions of {mask} have a median side of {side:.0f} px; the model was trained on {low:.0f} to {high:.0f} px",
        "give the picture at the magnification of the training slides",
    )
    MAGNIFICATION = (
        "magnification",
        "it has {mpp:.3g} microns per pixel; the model was trained at {trained:.3g} and does not resample",
        "give the slide at the magnification of the training slides, or train with target_mpp",
    )
    LOW_CONFIDENCE = ("low_confidence", "the confidence {confidence:.2f} is below {threshold}")
    DECISION = ("decision", "{decision}{why}; automatic outcome: {automatic}")
    # Regions of a slide.
    SMALL_REGION = ("small_region", "{area} px, under {min_area} px")
    LARGEST_REGION = (
        "largest_region",
        "no region reaches {min_area} px; the largest, {area} px, represents the slide",
    )
    TOO_MANY_REGIONS = ("too_many_regions", "{problem}")

    def because(self, **facts: Any) -> str:
        """The reason as stored in files, with the facts filled into its sentence."""
        return written(self, self.sentence.format(**facts))

    @classmethod
    def of(cls, text: str) -> "Reason | None":
        """The member for a reason read from a file; None if the text is empty.

        Raises:
            ValueError: an unknown reason, such as one of another version.
        """
        return cls(parsed(text)[0]) if text else None  # type: ignore[call-arg]  # the look-up by value


FIRST: Final = 3  # slides named in a line about many

# Slides dropped as contamination or by a manual decision; any other dropped slide is bad input, which `strict` refuses.
CONTAMINATION: Final = (Reason.CARTOON, Reason.CARTOON_TWIN, Reason.SLIME, Reason.DUPLICATE, Reason.DECISION)


def written(code: str, sentence: object) -> str:
    """A reason as text."""
    return f"{code}: {sentence}"


def parsed(text: str) -> tuple[str, str]:
    """Code and sentence of a reason as text."""
    code, _, sentence = text.partition(": ")
    return code, sentence


def first_few(slides: Sequence[str]) -> str:
    """The first three names: `img_0003, img_0007, img_0011, ...`."""
    return ", ".join([*map(shown_name, slides[:FIRST]), *["..."] * (len(slides) > FIRST)])


def shown_name(name: str) -> str:
    r"""A name for a message: control characters, which a terminal obeys, are written as ``."""
    return "".join(
        letter if ord(letter) >= 32 and not 127 <= ord(letter) < 160 else ascii(letter)[1:-1] for letter in name
    )


def by_reason(reasons: Iterable[tuple[str, str]]) -> list[str]:
    """One line per reason, the most frequent first, from pairs of slide and reason text.

    Each line has the count, the first three slides, what is wrong with the first one, and the remedy:
    `111 unlabelled: img_0003, img_0007, img_0011, ... (the first: img_0003 is not listed in train_labels.csv; add its
    label)`.
    """
    of_code: dict[str, list[tuple[str, str]]] = {}
    for slide, reason in reasons:
        code, sentence = parsed(reason)
        of_code.setdefault(code, []).append((slide, sentence))
    return [_line(code, slides) for code, slides in sorted(of_code.items(), key=lambda item: -len(item[1]))]


def _line(code: str, slides: Sequence[tuple[str, str]]) -> str:
    sentence = slides[0][1]
    remedy = next((f"; {reason.remedy}" for reason in Reason if reason == code and reason.remedy), "")
    first = "the first: " * (len(slides) > 1)
    return f"{len(slides)} {code}: {first_few([slide for slide, _ in slides])} ({first}{sentence}{remedy})"
