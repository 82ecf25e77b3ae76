"""The loop: steps, epochs, validation and checkpoints of one process of a run."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from finevote.build import describe_weights
from finevote.bundle.write import save_bundle
from finevote.config import load_config
from finevote.data.seeds import combine_seeds
from finevote.data.transforms import mix_batch
from finevote.errors import RunError
from finevote.explanation.figures import save_figure, training_curves
from finevote.files import atomic_write
from finevote.progress import Meter
from finevote.run_folder import RunFolder
from finevote.training.checkpoint import config_hash, load_best, load_checkpoint, save_checkpoint
from finevote.training.compiling import compiled
from finevote.training.launch import StopRequest, listen_for_stop
from finevote.training.optim import rate_table, schedule_factor, set_rates
from finevote.training.parts import build_parts
from finevote.training.prepare import load_data
from finevote.training.probing import starting_classifier
from finevote.training.step import StepResult, accumulate
from finevote.training.telemetry import (
    COLLAPSE_ADVICE,
    CollapseWatch,
    MetricsLog,
    RunningMeans,
    describe_best,
    describe_epoch,
    describe_losses,
)
from finevote.training.validate import calibrate_parts, gallery_of_parts, validate
from finevote.types import Batch

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from torch import Tensor

STEPS_BETWEEN_ROWS = 10


@dataclass
class Position:
    """Where the training is: `step` steps of `epoch` (0-based) are done; `best` is the best epoch's row so far."""

    epoch: int = 0
    step: int = 0
    best: dict[str, Any] | None = None
    means: RunningMeans = field(default_factory=RunningMeans)


@dataclass
class _EpochClock:
    """The time since this process began an epoch, at `first_step` of it."""

    first_step: int = 0
    start: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start


class Training:
    """Everything one process trains with; `run` goes from the last checkpoint, or the start, to the bundle."""

    def __init__(self, fabric: Fabric, folder: RunFolder, *, console: Console) -> None:
        self.fabric = fabric
        self.folder = folder
        self.console = console
        self.config = load_config(folder.config_yaml)
        self.source = load_data(folder)
        self.setting: str = folder.read_json(folder.data_json)["setting"]
        self.log = MetricsLog(folder.metrics_jsonl)
        self.collapse = CollapseWatch(margin=self.config.loss.triplet_margin)
        self.position = Position()
        is_new = not folder.last_checkpoint.exists()
        classifier = starting_classifier(folder, self.config) if is_new else None
        self.parts = build_parts(fabric, self.config, self.source, load_weights=is_new, classifier=classifier)
        self.num_batches = len(self.parts.train_loader)
        self.stepper = fabric.setup_optimizers(self.parts.optimizer)
        self.wrapped: Any = None
        self.is_frozen: bool | None = None
        self.clock = _EpochClock()
        self._resume()

    def run(self) -> bool:
        """Train to the end; False if told to stop before, with the state saved."""
        training = self.config.training
        self._print_start()
        meter = Meter(
            "train",
            total=training.epochs * self.num_batches * training.batch_size,
            done=self.num_steps_done * training.batch_size,
            console=self.console,
        )
        with listen_for_stop() as stop, meter, compiled(self.parts.model, wanted=training.compile):
            while self.position.epoch < training.epochs:
                if not self._train_epoch(stop, meter):
                    self._stop()
                    return False
                self._close_epoch(meter)
        self._finish()
        return True

    @property
    def num_steps_done(self) -> int:
        """Optimiser steps since the start."""
        return self.position.epoch * self.num_batches + self.position.step

    def _set_frozen(self) -> None:
        """Freeze the backbone in the epochs of the head, and wrap the model anew whenever that changes.

        The reduction of gradients over processes is laid out for those that are there when the model is wrapped.
        """
        training = self.config.training
        is_frozen = training.freeze_backbone or self.position.epoch < training.head_only_epochs
        if is_frozen != self.is_frozen:
            self.parts.model.freeze_backbone(is_frozen)
            self.wrapped = self.fabric.setup_module(self.parts.model)
            self.is_frozen = is_frozen

    def _train_epoch(self, stop: StopRequest, meter: Meter) -> bool:
        """Take the steps of this epoch that are left; False if told to stop."""
        self._set_frozen()
        sampler: Any = self.parts.train_loader.batch_sampler
        sampler.epoch, sampler.start_batch = self.position.epoch, self.position.step
        self.clock = _EpochClock(first_step=self.position.step)
        for batch in self.parts.train_loader:
            figures = self._take_step(batch)
            self._report_step(figures, meter)
            if self._any_process_stops(stop):
                return False
        return True

    def _take_step(self, batch: Batch) -> dict[str, float]:
        """Move the weights once; return the step's figures by their names in metrics.jsonl."""
        config, step = self.config, self.num_steps_done
        set_rates(self.parts.optimizer, self.parts.groups, factor=self._rate_factor(step))
        self.parts.optimizer.zero_grad()
        result = accumulate(
            self.fabric,
            self.wrapped,
            self._mix(self.fabric.to_device(batch), step),
            self.parts.loss,
            triplet_weight=self._triplet_weight(),
            micro_batch=self.parts.micro_batch,
            noise_seed=_step_seed(config.training.seed, step),
        )
        norm = self.fabric.clip_gradients(
            self.wrapped, self.stepper, max_norm=config.optim.clip_norm or math.inf, error_if_nonfinite=False
        )
        figures = _figures(result, norm)
        self._check_finite(figures)
        self.stepper.step()
        if result.layer_picks is not None and self.position.epoch >= config.model.voting.dynamic_warmup_epochs:
            self.parts.model.update_budget(result.layer_picks)
        if self.parts.average:
            self.parts.average.update(self.parts.model)
        self.position.step += 1
        self.position.means.add(figures)
        return figures

    def _rate_factor(self, step: int) -> float:
        optim = self.config.optim
        return schedule_factor(
            step,
            num_steps=self.config.training.epochs * self.num_batches,
            num_warmup_steps=round(optim.warmup_epochs * self.num_batches),
            final_factor=optim.final_lr_factor,
        )

    def _triplet_weight(self) -> float:
        """Return w in this epoch: over the first n warm-up epochs 1 / (n + 1), 2 / (n + 1), ... of it."""
        loss = self.config.loss
        return loss.triplet_weight * min(1.0, (self.position.epoch + 1) / (loss.triplet_warmup_epochs + 1))

    def _mix(self, batch: Batch, step: int) -> Batch:
        """Blend images within this process's rows, where the settings ask for it."""
        return mix_batch(
            batch,
            num_classes=len(self.source.class_names),
            mixup=self.config.data.mixup,
            cutmix=self.config.data.cutmix,
            seed=combine_seeds(self.config.training.seed, step, self.fabric.global_rank),
        )

    def _check_finite(self, figures: Mapping[str, float]) -> None:
        """Raise RunError before a step that would spoil the weights; fp16 skips steps whose gradient overflows."""
        checked = dict(figures)
        if self.config.training.precision == "fp16":
            checked.pop("gradient_norm")
        if all(math.isfinite(value) for value in checked.values()):
            return
        terms = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        last = self.folder.last_checkpoint
        kept = f"; checkpoints from before are kept in {last.parent}" if last.exists() else ""
        raise RunError(
            f"step {self.position.step + 1} of epoch {self.position.epoch + 1} gave numbers that are not finite "
            f"({terms}): start a new run with a lower optim.lr, more optim.warmup_epochs, optim.clip_norm=1, or "
            f"training.precision=fp32{kept}"
        )

    def _report_step(self, figures: Mapping[str, float], meter: Meter) -> None:
        training, position = self.config.training, self.position
        note = f"epoch {position.epoch + 1}/{training.epochs}, step {position.step}/{self.num_batches}"
        rate = f"lr {self._rates()['lr_max']:.2g}"
        meter.advance(training.batch_size, note=f"{note}, {rate}, {describe_losses(figures)}")
        if self.num_steps_done % STEPS_BETWEEN_ROWS == 0:
            self._write({"kind": "step", **self._place(), **figures, **self._state_figures()})
        if "loss_triplet" in figures and self.collapse.see(triplet=figures["loss_triplet"], spread=figures["spread"]):
            self._write({"kind": "warning", **self._place(), "message": COLLAPSE_ADVICE})
            meter.print(f"WARNING: {COLLAPSE_ADVICE}")

    def _close_epoch(self, meter: Meter) -> None:
        """Validate, note the figures, and save."""
        training = self.config.training
        is_last = self.position.epoch + 1 == training.epochs
        row = {"kind": "epoch", **self._place(), **self.position.means.means(), **self._state_figures()}
        val_loader = self.parts.val_loader
        if val_loader and (is_last or (self.position.epoch + 1) % training.validate_every == 0):
            meter.advance(0, note=f"epoch {self.position.epoch + 1}/{training.epochs}, validating")
            row |= validate(self.fabric, self.parts.evaluated_model, val_loader, records=self.source.splits["val"])
        row["seconds"] = round(self.clock.seconds, 3)
        is_best = _beats(row, self.position.best) if val_loader else is_last
        self._write(row)
        meter.print(describe_epoch(row, num_epochs=training.epochs, is_best=is_best))
        self.position = Position(epoch=self.position.epoch + 1, best=row if is_best else self.position.best)
        self._save(is_best=is_best)

    def _any_process_stops(self, stop: StopRequest) -> bool:
        """Agree with the other processes, which may have got the signal in another step."""
        if self.fabric.world_size == 1:
            return stop.requested
        wish = torch.tensor(float(stop.requested), device=self.fabric.device)
        return bool(self.fabric.all_reduce(wish, reduce_op="sum"))

    def _save(self, *, is_best: bool) -> None:
        if not self.fabric.is_global_zero:
            return
        position = self.position
        state = {
            "config_hash": config_hash(self.config),
            **self.parts.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "position": {
                "epoch": position.epoch,
                "step": position.step,
                "best": position.best,
                "sums": position.means.sums,
                "num_steps": position.means.num_steps,
            },
        }
        if is_best:  # first: killed in between, the run goes on from the epoch before and writes it again
            save_checkpoint(self.folder.best_checkpoint, state)
        save_checkpoint(self.folder.last_checkpoint, state)

    def _resume(self) -> None:
        """Take over the last checkpoint, if there is one, and drop the rows of what will be done again."""
        if self.folder.last_checkpoint.exists():
            self._load_state()
        if self.fabric.is_global_zero:
            self.log.keep_until(step=self.num_steps_done, num_epochs=self.position.epoch)

    def _load_state(self) -> None:
        state = load_checkpoint(self.folder.last_checkpoint)
        if state["config_hash"] != config_hash(self.config):
            raise RunError(
                f"{self.folder.config_yaml} has changed since {self.folder.last_checkpoint} was written: "
                "put it back, or start a new run with the new settings"
            )
        self.parts.load_state_dict(state)
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        place = dict(state["position"])
        means = RunningMeans(place.pop("sums"), place.pop("num_steps"))
        self.position = Position(**place, means=means)

    def _print_start(self) -> None:
        if self.position.epoch >= self.config.training.epochs:
            self.console.print("all epochs are done, only the bundle is left to write", highlight=False)
            return
        if self.config.training.micro_batch == "auto":
            self.console.print(f"micro-batch: {self.parts.micro_batch} images at once in a process", highlight=False)
        if self.num_steps_done:
            at = f"epoch {self.position.epoch + 1}, step {self.position.step + 1}"
            self.console.print(f"going on at {at}", highlight=False)
            return
        self.console.print(rate_table(self.parts.groups))
        if obligations := describe_weights(self.config.model).obligations:
            self.console.print(f"the weights: {obligations}", highlight=False, markup=False)
        if self.fabric.is_global_zero:
            groups = [group.describe() for group in self.parts.groups]
            atomic_write(self.folder.lr_groups_json, json.dumps(groups, indent=1) + "\n")

    def _stop(self) -> None:
        self._save(is_best=False)
        self._draw_curves()
        at = f"epoch {self.position.epoch + 1}, step {self.position.step} of {self.num_batches}"
        self.console.print(f"stopped after {at}; go on with", highlight=False)
        self.console.print(f"  finevote fit --resume {self.folder.path}", highlight=False, soft_wrap=True)

    def _finish(self) -> None:
        """Write the curves, then the bundle, whose presence says that the run is finished."""
        if not self.fabric.is_global_zero:
            return
        self._draw_curves()
        best = load_best(self.folder.best_checkpoint)
        self.parts.load_state_dict(best)
        row = best["position"]["best"]
        data = self.folder.read_json(self.folder.data_json)["data"]
        save_bundle(
            self.folder.bundle,
            self.parts.evaluated_model,
            config=self.config,
            class_names=self.source.class_names,
            taxonomy=self.source.taxonomy,
            preprocessing=self.parts.preprocessing,
            calibration=calibrate_parts(self.parts, self.source, self.config),
            gallery=gallery_of_parts(self.parts, self.source, self.config, data=data, console=self.console),
            details={
                "data": self.source.name,
                "protocol": self.source.protocol,
                "setting": self.setting,
                "epochs": self.config.training.epochs,
                "seed": self.config.training.seed,
                "weights": asdict(describe_weights(self.config.model)),
                "best_epoch": row["epoch"],
                **{name: row[name] for name in ("val_top1", "val_num_images") if name in row},
            },
        )
        self._print_best(row)

    def _print_best(self, row: Mapping[str, Any]) -> None:
        found = describe_best(row, num_epochs=self.config.training.epochs)
        for line in (f"{found}, in {self.folder.bundle}", self.setting):
            self.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _draw_curves(self) -> None:
        rows = self.log.rows()
        if self.fabric.is_global_zero and any(row["kind"] == "epoch" for row in rows):
            save_figure(training_curves(rows, subtitle=self.setting), self.folder.curves_png)

    def _write(self, row: Mapping[str, Any]) -> None:
        if self.fabric.is_global_zero:
            self.log.write(row)

    def _place(self) -> dict[str, int]:
        return {"epoch": self.position.epoch + 1, "step": self.num_steps_done}

    def _rates(self) -> dict[str, float]:
        rates = [group["lr"] for group in self.parts.optimizer.param_groups]
        return {"lr_min": min(rates), "lr_max": max(rates)}

    def _state_figures(self) -> dict[str, Any]:
        """Return what a row says besides losses: rates, speed and budget."""
        num_images = (self.position.step - self.clock.first_step) * self.config.training.batch_size
        return {
            **self._rates(),
            "images_per_s": round(num_images / max(self.clock.seconds, 1e-9), 2),
            "budget": self.parts.model.budget,
        }


def _figures(result: StepResult, norm: Tensor) -> dict[str, float]:
    """Return a step's figures under their names in metrics.jsonl, with one wait for the device."""
    tensors = {"loss": result.losses["total"]}
    tensors |= {f"loss_{name}": value for name, value in result.losses.items() if name != "total"}
    tensors["train_top1"] = result.num_correct / result.num_images
    if result.embedding_spread is not None:
        tensors["spread"] = result.embedding_spread
    tensors["gradient_norm"] = norm
    values = torch.stack([tensor.detach().float().to(norm.device) for tensor in tensors.values()]).tolist()
    return dict(zip(tensors, values, strict=True))


def _step_seed(seed: int, step: int) -> int:
    """Return the seed of a step's dropout and drop-path masks, below 2 ** 32."""
    return combine_seeds(seed, step) % 2**32


def _beats(row: Mapping[str, Any], best: Mapping[str, Any] | None) -> bool:
    """Compare by validation top-1, then by the lower loss; the earlier epoch wins a tie, one not validated never."""
    if "val_top1" not in row:
        return False
    if best is None:
        return True
    return bool((row["val_top1"], -row["val_loss"]) > (best["val_top1"], -best["val_loss"]))
