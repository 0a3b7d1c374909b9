"""Many images segmented by several methods: their scores, streamed to disk, and examples as pictures."""

import numpy as np
import torch

from clipspectra.arrays import ArrayStream
from clipspectra.data.geometry import mask_transform
from clipspectra.data.pictures import ImageFiles, batches, filled, named_skipped
from clipspectra.jobs import progress
from clipspectra.segmentation import images
from clipspectra.segmentation.tables import scores_array
from clipspectra.towers.devices import explain_out_of_memory
from clipspectra.towers.families import adapt


class Segmenter:
    """A model, its classes and the methods that segment for them.

    classifier: array [d_embed, class]; root: the manifest's folder; squashed: whether the whole picture is resized to
    the model's input, instead of its middle; mask_pixels: see pictures.upright_mask; log: prints to the job's log
    methods: at first those asked for, then those that the tower supports
    """

    def __init__(self, loaded, classifier, methods, root, *, batch_size, squashed, mask_pixels, log):
        self.loaded, self.tower, self.log = loaded, adapt(loaded.model.visual), log
        self.classifier = torch.from_numpy(classifier).to(loaded.device)
        self.methods, self.root, self.batch_size = list(methods), root, batch_size
        self.squashed, self.mask_pixels = squashed, mask_pixels
        self.to_mask = mask_transform(loaded.preprocess, loaded.image_size, squashed)

    def files(self, table):
        """ImageFiles of a table's images with their masks."""
        return ImageFiles(table, self.root, self.loaded.preprocess, self.to_mask, self.mask_pixels)

    def evidence(self, pictures, classes, methods):
        """images.method_evidence of a batch, {method: [image, patch]}."""
        options = {"classes": classes, "tower": self.tower, "log": self.log}
        return images.method_evidence(self.loaded.model, pictures, self.classifier, methods, **options)

    def score(self, table, folder, *, classes, workers, on_bad_image, pictures_folder=None):
        """(ArrayStream in `folder`, skipped pictures by name) of a table's images.

        The stream holds scores, as tables.scores_array, row and picture_id.
        classes: of the images, [image], None for the model's top-1 classes; pictures_folder: for images.save_pictures
        """
        stream, skipped, files = ArrayStream(folder), [], self.files(table)
        options = {"workers": workers, "on_bad_image": on_bad_image, "skipped": skipped}
        with (
            progress(None, "segmentation", total=len(table), unit="image") as bar,
            explain_out_of_memory(self.batch_size),
        ):
            for rows, (pictures, masks) in batches(files, self.batch_size, **options):
                indices, masks = filled(len(rows), self.batch_size), masks.numpy()
                batch_classes = None if classes is None else classes[rows][indices]
                evidence = self.evidence(pictures[indices], batch_classes, self.methods)
                evidence = {method: values[: len(rows)] for method, values in evidence.items()}
                self.methods = list(evidence)
                own = None if self.squashed else images.own_masks(files, rows, masks.shape[-2:])
                scores = images.score_batch(evidence, self.tower.grid, masks, rows, own)
                columns = {name: table[name].to_numpy()[rows] for name in ("row", "picture_id")}
                stream.append({"scores": scores_array(scores, self.methods, rows)} | columns)
                if pictures_folder is not None:
                    values = evidence[self.methods[0]]
                    examples = images.example_arrays(files, rows, masks, values, self.tower.grid)
                    images.save_pictures(pictures_folder, columns["row"], examples)
                bar.update(len(rows))
        return stream, named_skipped(skipped, table)

    def examples(self, by_image, table, seed, *, classes):
        """(images.example_arrays, kinds, method) of the best, the worst and random images by the first method.

        by_image: tables.scores_table of the images of a table, whose column `row` counts the table's rows
        """
        method, files = self.methods[0], self.files(table)
        kinds, rows = map(list, zip(*images.choose_examples(by_image, method, seed)))
        pictures, masks = (torch.stack(tensors) for tensors in zip(*(files[row][1] for row in rows)))
        classes = [None] * len(rows) if classes is None else classes[rows].split(self.batch_size)
        values = [
            self.evidence(batch, batch_classes, [method])[method]
            for batch, batch_classes in zip(pictures.split(self.batch_size), classes)
        ]
        return images.example_arrays(files, rows, np.stack(masks), torch.cat(values), self.tower.grid), kinds, method
