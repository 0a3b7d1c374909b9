"""Many images segmented by several methods: their scores, streamed to disk, and examples as pictures."""

import numpy as np
import torch

from clipspectra.arrays import ArrayStream, load_arrays
from clipspectra.contributions.chunks import check_weights
from clipspectra.data.datasets import class_labels
from clipspectra.data.geometry import mask_transform
from clipspectra.data.pictures import ImageFiles, batches, filled, named_skipped
from clipspectra.data.store import picture_ids
from clipspectra.jobs import progress
from clipspectra.segmentation import images
from clipspectra.segmentation.tables import scores_array
from clipspectra.towers.devices import explain_out_of_memory
from clipspectra.towers.families import adapt


class Segmenter:
    """A model, the classes that it segments for, and how pictures and masks become its input.

    classifiers: file of a dataset's classifiers; root: the manifest's folder; target, direction and geometry: as in the
    config; mask_pixels: see pictures.upright_mask; log: prints to the job's log
    classifier: as an attribute [d_embed, class]
    """

    def __init__(
        self, loaded, classifiers, dataset, root, *, batch_size, target, direction, geometry, mask_pixels, log
    ):
        self.loaded, self.tower, self.log = loaded, adapt(loaded.model.visual), log
        self.classifiers, self.dataset, self.root, self.batch_size = classifiers, dataset, root, batch_size
        check_weights([classifiers], loaded.sha256 or "")
        self.classifier = torch.from_numpy(load_arrays(classifiers, "class")[0]["class"]).to(loaded.device)
        self.by_label, self.squashed, self.mask_pixels = target == "label", geometry == "squashed", mask_pixels
        self.direction = direction
        self.to_mask = mask_transform(loaded.preprocess, loaded.image_size, self.squashed)

    def files(self, table):
        """ImageFiles of the images of a seed's table, with their masks."""
        ids = picture_ids(table["image_sha256"])
        return ImageFiles(table, self.root, self.loaded.preprocess, self.to_mask, self.mask_pixels, ids)

    def classes(self, table):
        """The class of each image of a table, [image]; None for the model's top-1 classes."""
        return torch.from_numpy(class_labels(self.classifiers, table, self.dataset)[1]) if self.by_label else None

    def evidence(self, pictures, classes, methods):
        """images.method_evidence of a batch, {(method, given): [image, patch]}."""
        options = {"classes": classes, "tower": self.tower, "log": self.log}
        return images.method_evidence(self.loaded.model, pictures, self.classifier, methods, **options)

    def score(self, table, methods, folder, *, workers, on_bad_image, pictures_folder=None):
        """(ArrayStream in `folder`, maps, skipped pictures by name) of a table's images.

        maps: (method, given) of those that the tower supports. The stream holds scores, as tables.scores_array of these
        maps, row and picture_id. pictures_folder: for images.save_pictures, of the first method
        """
        stream, skipped, files, classes = ArrayStream(folder), [], self.files(table), self.classes(table)
        maps = []
        options = {"workers": workers, "on_bad_image": on_bad_image, "skipped": skipped}
        with (
            progress(None, "segmentation", total=len(table), unit="image") as bar,
            explain_out_of_memory(self.batch_size),
        ):
            for rows, (pictures, masks) in batches(files, self.batch_size, **options):
                indices, masks = filled(len(rows), self.batch_size), masks.numpy()
                batch_classes = None if classes is None else classes[rows][indices]
                evidence = self.evidence(pictures[indices], batch_classes, methods)
                evidence = {method: values[: len(rows)] for method, values in evidence.items()}
                maps = list(evidence)
                methods = list(dict.fromkeys(method for method, _ in maps))  # others would be refused each time
                own = None if self.squashed else images.own_masks(files, rows, masks.shape[-2:])
                scores = images.score_batch(evidence, self.tower.grid, masks, rows, own)
                columns = {name: table[name].to_numpy()[rows] for name in ("row", "picture_id")}
                stream.append({"scores": scores_array(scores, maps, rows)} | columns)
                if pictures_folder is not None:
                    shown = evidence[self.shown_map(maps)]
                    examples = images.example_arrays(files, rows, masks, shown, self.tower.grid)
                    images.save_pictures(pictures_folder, columns["row"], examples)
                bar.update(len(rows))
        return stream, maps, named_skipped(skipped, table)

    def shown_map(self, maps):
        """(method, given) of the map that figures and pictures show: of the first method, as the config says."""
        return maps[0][0], images.given_to(maps[0][0], self.direction)[0]

    def examples(self, by_image, table, shown, seed):
        """(images.example_arrays, kinds, rows of the table) of the best, the worst and random images by a map.

        by_image: tables.scores_table of the images of a table, whose column `row` counts the table's rows
        shown: the map, (method, given)
        """
        files, classes = self.files(table), self.classes(table)
        kinds, rows = map(list, zip(*images.choose_examples(by_image, *shown, seed)))
        pictures, masks = (torch.stack(tensors) for tensors in zip(*(files[row][1] for row in rows)))
        classes = [None] * len(rows) if classes is None else classes[rows].split(self.batch_size)
        values = [
            self.evidence(batch, batch_classes, shown[:1])[shown]
            for batch, batch_classes in zip(pictures.split(self.batch_size), classes)
        ]
        return images.example_arrays(files, rows, np.stack(masks), torch.cat(values), self.tower.grid), kinds, rows
