"""What an explanation comes to, in words: for titles, captions, the terminal and alternative texts."""

from math import floor, isnan, log10

from finevote.explanation.explained import Contrast, Explanation
from finevote.explanation.vote_map import area_of_votes

_NUM_NAMED = 3  # classes of a set


def finding(explanation: Explanation) -> str:
    """Return the class, how likely it is, and where the votes lie, in one line."""
    name, probability = readable(explanation.class_name), explanation.ranked.probabilities[0]
    said = f"{name}, {percent(probability)}"
    if explanation.verdict is not None and explanation.verdict.is_unknown:
        said = f"None of the classes (the likeliest: {said})"
    if explanation.true_name is not None and explanation.true_name != explanation.class_name:
        said += f" (is {readable(explanation.true_name)})"
    area = area_of_votes(explanation.votes.final)
    if isnan(area):
        return f"{said}: no votes"
    what = "votes" if explanation.votes.has_second_vote else "selections"
    return f"{said}: half of the {what} on {percent(area)} of the view"


def tell_set(explanation: Explanation) -> str:
    """Return which classes the set holds; nothing where there is none."""
    found = explanation.prediction_set
    if found is None:
        return ""
    promise = f"the set that holds the true class of {percent(found.coverage)} of images"
    if not found.class_names:
        return f"Empty is {promise}: none is likely enough"
    names = ", ".join(map(readable, found.class_names[:_NUM_NAMED]))
    more = len(found.class_names) - _NUM_NAMED
    rest = f" and {more:,} more" if more > 0 else ""
    return f"In {promise}: {names}{rest}"


def tell_verdict(explanation: Explanation) -> str:
    """Return whether the image is called unknown, by which score; nothing where nobody can tell."""
    verdict = explanation.verdict
    if verdict is None:
        return ""
    said, side = ("Called unknown", "above") if verdict.is_unknown else ("Not called unknown", "not above")
    method = verdict.method.replace("_", " ")
    return (
        f"{said}: its score by {method}, {verdict.score:.3g}, is {side} {verdict.threshold:.3g}, "
        f"which {percent(verdict.false_alarms)} of known images pass"
    )


def tell_contrast(contrast: Contrast) -> str:
    """Return how the logits of the two classes differ, and how much of it the patches add."""
    without, added = contrast.difference_without, float(contrast.contributions.sum())
    largest = max(abs(contrast.difference), abs(without), abs(added), 1e-12)
    num_decimals = max(2 - floor(log10(largest)), 0)  # three digits of the largest
    whole, rest, patches = (f"{part:+.{num_decimals}f}" for part in (contrast.difference, without, added))
    return (
        f"Logits differ by {whole}: {rest} without any selected token, {patches} by the patches "
        f"(standard error of one: up to {contrast.standard_errors.max():.1g})"
    )


def percent(share: float) -> str:
    """Return a share in whole percent; what is not quite 0 or 1 is never told as such."""
    if 0 < share <= 0.005:
        return "<1%"
    return ">99%" if 0.995 <= share < 1 else f"{share:.0%}"


def readable(name: str) -> str:
    """Return a class name as people write it."""
    return name.replace("_", " ")
