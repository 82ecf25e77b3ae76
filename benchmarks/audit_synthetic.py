"""How much of what is planted in the synthetic birds an audit finds: `python -m benchmarks.audit_synthetic`.

Writes the 1,680 birds as JPEGs with 60 exact and 120 altered copies over all splits, flips the labels of 5% of the
images, and audits them without weights. Flips go to any class, then to the sister species of the same genus only, which
is the harder case. Nothing of what was planted is told to the audit.
"""

import argparse
import tempfile
import time
from pathlib import Path

from tests.audit.planting import Planted, plant

from finevote.audit.findings import DUPLICATES, Audit
from finevote.audit.run import audit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    parser.add_argument("--share", type=float, default=0.05, help="of the labels to flip")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for within_genus in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                planted = plant(
                    Path(folder) / "birds",
                    num_exact=60,
                    num_altered=120,
                    flipped_share=arguments.share,
                    within_genus=within_genus,
                    seed=seed,
                )
                start = time.monotonic()
                found, _ = audit(planted.table, out=Path(folder) / "audit")
                seconds = time.monotonic() - start
            kind = "sister species" if within_genus else "any class"
            print(f"seed {seed}, flips to {kind}: {describe(found, planted)}, {seconds:.0f} s", flush=True)


def describe(found: Audit, planted: Planted) -> str:
    told = [finding.images[0].id for finding in found.of_kind("label_error")]
    hits = sum(image_id in planted.flips for image_id in told)
    exact = count_found(found, planted.exact, kinds=("same_file",))
    altered = count_found(found, planted.altered, kinds=DUPLICATES)
    pairs = {**planted.exact, **planted.altered}
    families = [{image.id for image in finding.images} for kind in DUPLICATES for finding in found.of_kind(kind)]
    false = sum(len({pairs.get(image_id, image_id) for image_id in family}) > 1 for family in families)
    return (
        f"exact copies {exact}/{len(planted.exact)}, altered copies {altered}/{len(planted.altered)}, "
        f"false sets of copies {false}, flips found {hits}/{len(planted.flips)} ({hits / len(planted.flips):.1%}), "
        f"precision {hits / max(len(told), 1):.1%} of {len(told)}"
    )


def count_found(found: Audit, pairs: dict[str, str], *, kinds: tuple[str, ...]) -> int:
    families = [{image.id for image in finding.images} for kind in kinds for finding in found.of_kind(kind)]
    return sum(any({copy, original} <= family for family in families) for copy, original in pairs.items())


if __name__ == "__main__":
    main()
