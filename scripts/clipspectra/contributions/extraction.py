"""Activations of many images, streamed to disk, with the proof that all contributions add up to the embedding."""

from dataclasses import replace

import torch
from torch.nn.functional import normalize

from clipspectra import InputError
from clipspectra.arrays import ArrayStream
from clipspectra.contributions.exact import activations, for_sums, head_basis, heads_sum, sum_errors
from clipspectra.data.geometry import model_view
from clipspectra.data.pictures import ImageFiles, batches, filled, named_skipped, open_rgb
from clipspectra.jobs import progress
from clipspectra.towers.devices import LARGEST_ERROR, ahead, explain_out_of_memory
from clipspectra.towers.families import adapt


def extract(loaded, table, root, folder, *, batch_size, workers, layers="all", dtype="float32", on_bad_image="fail"):
    """(ArrayStream in `folder`, proof) over the images of a table, in its order.

    table: columns image, row, picture_id, and checked, whether the image also goes through the bare model
    layers: how many of the last layers to keep, or "all"; of the others only their sum, `early` [image, d_embed]
    dtype: of the stored arrays, "float32" or "float16"; scalars, embedding and errors stay float32
    on_bad_image: "fail" or "skip"

    Errors are stored by image: sum_error, the largest |sum of parts - e/n|; stored_sum_error, the same after rounding
    to dtype; model_error, the largest difference of e/n from that of the bare model, nan where it was not checked.
    The proof, as a dict: first_layer, the first one kept; skipped, the images that could not be read, each with the
    reason. Raises InputError where an error is above LARGEST_ERROR, and naming an image whose activations are not
    finite.
    """
    images = DecomposedImages(loaded, layers=layers, dtype=dtype)
    stream, options = ArrayStream(folder), {"batch_size": batch_size, "workers": workers, "on_bad_image": on_bad_image}
    for rows, batch, errors in images.batches(table, root, **options):
        chosen, arrays = table.iloc[rows], images.stored_arrays(batch, errors)
        stream.append(arrays | {name: chosen[name].to_numpy() for name in ("row", "picture_id")})
    return stream, {"first_layer": images.first, "skipped": images.skipped}


class DecomposedImages:
    """Images run through a model batch by batch, with the proof that all contributions add up to the embedding.

    layers, dtype: as in `extract`; first: number of the first layer that is kept; skipped: the images that could not be
    read, each with the reason, once all batches are through
    """

    def __init__(self, loaded, *, layers="all", dtype="float32"):
        self.loaded, self.dtype, self.skipped = loaded, getattr(torch, dtype), []
        self.tower, self.device = adapt(loaded.model.visual), loaded.device
        layer_count = len(self.tower.layers)
        if layers != "all" and layers > layer_count:
            raise InputError(f"'layers' asks for the last {layers} layers; the model has {layer_count}.")
        self.first = 0 if layers == "all" else layer_count - layers
        self.basis = for_sums(head_basis(self.tower))

    @torch.no_grad()
    def batches(self, table, root, *, batch_size, workers, on_bad_image="fail"):
        """Yield (rows of the table, Activations of the kept layers, errors of each image) of all images, in batches."""
        first, skipped, names, is_checked = self.first, [], table["image"], table["checked"].to_numpy()
        files = ImageFiles(table, root, self.loaded.preprocess, ids=table["picture_id"].to_numpy())
        options = {"workers": workers, "device": self.device, "on_bad_image": on_bad_image, "skipped": skipped}
        with progress(None, "activations", total=len(table), unit="image") as bar, explain_out_of_memory(batch_size):
            decoded = batches(files, batch_size, **options)
            passed = (self._pass(rows, images, batch_size, is_checked[rows]) for rows, (images,) in decoded)
            for rows, batch, errors in ahead(passed, self.device):
                _check_finite(batch, names.iloc[rows])
                errors["sum_error"] = sum_errors(batch, self.basis)
                for error in errors.values():
                    _check_error(error.nan_to_num().max().item(), self.loaded.precision)
                if first:
                    early = heads_sum(batch.z[:, :first], batch.scalars, self.basis[:first].to(batch.z))
                    class_self = None if batch.class_self is None else batch.class_self[:, first:]
                    batch = replace(batch, z=batch.z[:, first:], class_self=class_self, early=early)
                yield rows, batch, errors
                bar.update(len(rows))
        self.skipped = named_skipped(skipped, table)

    def _pass(self, rows, images, batch_size, is_checked):
        """(rows, Activations, {"model_error"}) of a batch that is filled up to batch_size for the forward pass."""
        count, model, checked = len(rows), self.loaded.model, torch.from_numpy(is_checked)
        images = images if count == batch_size else images[filled(count, batch_size)]
        with self.loaded.autocast():
            batch = activations(model, images, tower=self.tower).first(count)
            errors = {"model_error": torch.full((count,), float("nan"))}
            if checked.any():
                bare = model.encode_image(images, normalize=False)[:count].to(batch.embedding)
                difference = normalize(bare) - normalize(batch.embedding)
                errors["model_error"][checked] = difference.abs().amax(1).float().cpu()[checked]
        return rows, batch, errors

    @torch.no_grad()
    def stored_arrays(self, batch, errors):
        """{name: numpy array [image, …]} of a batch as it is stored; errors get that of the rounding, too."""
        stored = {"z": batch.z, "mlps": batch.mlps, "class_self": batch.class_self, "early": batch.early}
        stored = {name: tensor.to(self.dtype) for name, tensor in stored.items() if tensor is not None}
        rounded = replace(batch, **{name: tensor.to(batch.z) for name, tensor in stored.items()})
        errors["stored_sum_error"] = sum_errors(rounded, self.basis[self.first :])
        stored |= {"scalars": batch.scalars, "embedding": batch.embedding}
        stored |= {name: error.float() for name, error in errors.items()}
        on_gpu = self.device.type == "cuda"  # all copies at once, into memory that is locked for them
        stored = {name: tensor.to("cpu", non_blocking=on_gpu) for name, tensor in stored.items()}
        if on_gpu:
            torch.cuda.current_stream(self.device).synchronize()
        return {name: tensor.numpy() for name, tensor in stored.items()}


def _check_finite(batch, names):
    """Raise InputError naming the first image with an activation that is not a finite number."""
    for tensor in (batch.embedding, batch.z, batch.mlps, batch.scalars):
        broken = (~torch.isfinite(tensor.flatten(1)).all(1)).nonzero().flatten().tolist()
        if broken:
            raise InputError(
                f"The model's activations of {names.iloc[broken[0]]} are not finite numbers; check the image, and the "
                "precision if it is not fp32."
            )


def _check_error(error, precision):
    if error > LARGEST_ERROR[precision]:
        raise InputError(
            f"The contributions miss the model's embedding by {error:.1e}, more than {LARGEST_ERROR[precision]:.0e} "
            f"(precision {precision}): this model is not decomposed exactly."
        )


def extract_picture(loaded, path):
    """Arrays of one picture as an extraction stores them, and `picture`, what the model sees [height, width, 3]."""
    stored = activations(loaded.model, loaded.preprocess(open_rgb(path))[None].to(loaded.device))
    arrays = {name: getattr(stored, name).float().cpu().numpy() for name in ("z", "scalars", "embedding")}
    return arrays | {"picture": model_view(path, loaded.preprocess)}
