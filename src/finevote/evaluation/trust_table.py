"""How far a model can be believed, for people: a table and what is to be known of it."""

from rich.table import Table

from finevote.evaluation.trust import Figure, Reliability, Trust

WEAK_BELOW = 0.05  # how far below what is asked the coverage of one calibration may lie without a warning
_NAMES = {
    "calibration_error": "calibration error",
    "calibration_error_mass": "    bins of equal mass",
    "brier": "Brier score",
    "negative_log_likelihood": "neg. log-likelihood",
}


def trust_table(trust: Trust) -> Table:
    """Return calibration before and after the temperature, and the sets, as `rich` prints them."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("can it be believed? (95%)", overflow="fold")
    for name in ("as trained", "calibrated")[: 1 if trust.after is None else 2]:
        table.add_column(name, justify="right", overflow="fold")
    versions = [version for version in (trust.before, trust.after) if version is not None]
    for name, label in _NAMES.items():
        table.add_row(label, *(_describe(name, version) for version in versions))
    for row in trust.sets:
        table.add_row(f"{row.method} sets for {trust.coverage:.0%}: cover", "", _percent(row.coverage))
        table.add_row("    classes in a set", "", _number(row.mean_size, digits=1))
    return table


def trust_notes(trust: Trust) -> list[str]:
    """Return what calibrated, and how weak a guarantee its images give."""
    if trust.temperature is None or trust.guarantee_low is None or trust.guarantee_high is None:
        return ["not calibrated: the model was fitted without validation images, or by an earlier finevote"]
    how = "; here each fifth of them is judged by the other four" if trust.is_across else ""
    notes = [f"calibrated on {trust.num_images:,} validation images: temperature {trust.temperature:.3g}{how}"]
    if trust.guarantee_high == trust.guarantee_low == 1:
        notes.append(f"{trust.num_images:,} images are too few for sets of {trust.coverage:.0%}: they hold every class")
    elif trust.guarantee_low < trust.coverage - WEAK_BELOW:
        notes.append(
            f"the guarantee of {trust.coverage:.0%} is weak: it holds on average over calibrations, and one on "
            f"{trust.num_images:,} images covers between {trust.guarantee_low:.1%} and {trust.guarantee_high:.1%}"
        )
    return notes


def _describe(name: str, version: Reliability) -> str:
    figure: Figure = getattr(version, name)
    return _percent(figure) if name.startswith("calibration_error") else _number(figure, digits=3)


def _percent(figure: Figure) -> str:
    return f"{figure.value:.1%} ({figure.low * 100:.1f} to {figure.high * 100:.1f}%)"


def _number(figure: Figure, *, digits: int) -> str:
    return f"{figure.value:.{digits}f} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"
