"""Fine-grained image classification by multi-scale ensemble voting of attention heads.

The public names are loaded on first use, so `import finevote` costs nothing:

    import finevote
    ranked = finevote.load("runs/my-run").predict("photo.jpg")
"""

from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finevote.build import build_model
    from finevote.client import Client
    from finevote.config import Config, list_recipes, load_config
    from finevote.data.registry import open_source
    from finevote.errors import FinevoteError
    from finevote.explanation.explained import Explanation
    from finevote.losses.triplet import batch_hard_triplet
    from finevote.measure.evaluate import evaluate
    from finevote.model import FineGrainedClassifier
    from finevote.predictor import Predictor
    from finevote.training.fit import fit, resume

    load = Predictor.load
    __version__: str

_HOME = {  # public name -> module : what it is called there
    "Client": "finevote.client:Client",
    "Config": "finevote.config:Config",
    "Explanation": "finevote.explanation.explained:Explanation",
    "FineGrainedClassifier": "finevote.model:FineGrainedClassifier",
    "FinevoteError": "finevote.errors:FinevoteError",
    "Predictor": "finevote.predictor:Predictor",
    "batch_hard_triplet": "finevote.losses.triplet:batch_hard_triplet",
    "build_model": "finevote.build:build_model",
    "evaluate": "finevote.measure.evaluate:evaluate",
    "fit": "finevote.training.fit:fit",
    "list_recipes": "finevote.config:list_recipes",
    "load": "finevote.predictor:Predictor.load",
    "load_config": "finevote.config:load_config",
    "open_source": "finevote.data.registry:open_source",
    "resume": "finevote.training.fit:resume",
}

__all__ = [
    "Client",
    "Config",
    "Explanation",
    "FineGrainedClassifier",
    "FinevoteError",
    "Predictor",
    "__version__",
    "batch_hard_triplet",
    "build_model",
    "evaluate",
    "fit",
    "list_recipes",
    "load",
    "load_config",
    "open_source",
    "resume",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("finevote")
    if name not in _HOME:
        raise AttributeError(f"module 'finevote' has no attribute {name!r}; it offers {', '.join(__all__)}")
    module, _, path = _HOME[name].partition(":")
    value = globals()[name] = attrgetter(path)(import_module(module))
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
