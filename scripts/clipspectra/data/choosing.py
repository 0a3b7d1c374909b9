"""The images that one seed uses, drawn on disk: memory grows with the number of classes, not of images."""

from collections import Counter

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.data.datasets import masked_rows, refuse_twice
from clipspectra.on_disk import array_on_disk, database, pieces_of

BLOCK = 2**16  # images of a class in memory


def choose_rows(manifest, roles, seed):
    """The rows of a manifest, a table in memory, that one seed uses, with columns row, its index, and role.

    Drawn as by ChosenRows; without the column split no row has one. Raises InputError for no rows, too.
    """
    if manifest.empty:
        raise InputError("There are no images to choose from.")
    numbered = manifest[["image", "class"]].assign(split=manifest.get("split", "")).fillna("")
    drawn = pd.concat(ChosenRows([numbered.astype(str).reset_index(drop=True)], roles, seed))
    chosen = manifest.iloc[drawn["row"]].reset_index(names="row").assign(role=drawn["role"].to_numpy())
    return chosen.sort_values(["role", "row"], ascending=[False, True], ignore_index=True)


class ChosenRows:
    """The rows of a manifest that one seed uses, piece by piece, as often as they are read; with columns row and role.

    manifest: a Manifest, or tables whose index is the row, that can be read again
    roles: {"fit": {"split": name or None, "per_class": n}, "eval": …}; pairs: whether all rows with a pair have the
    role "pair", whatever the seed
    counts: numbers of images, table [role, class], of all classes of the manifest

    From each class n images, or "all" that the other roles leave, are drawn without replacement; no image has two
    roles, and a class too small for all is shared in proportion to n. The draw of a class depends on the seed and on
    the names of the class and its images, not on the manifest's order. Pieces come by role, pairs last, and by row.
    Raises InputError for an image that is named twice, and for a role without images.
    """

    def __init__(self, manifest, roles, seed, pairs=False):
        self.manifest, self.names, self.draw = manifest, sorted(roles, reverse=True), Draw(roles)
        with database("images (row INTEGER, image TEXT, class TEXT, split TEXT, paired INTEGER)") as images:
            for piece in manifest:
                paired = (piece["pair"] != "").tolist() if pairs else [False] * len(piece)
                columns = piece.index.tolist(), piece["image"], piece["class"], piece["split"], paired
                images.executemany("INSERT INTO images VALUES (?, ?, ?, ?, ?)", zip(*columns))
            twice = images.execute(
                "WITH again AS (SELECT image, MIN(row) AS first FROM images GROUP BY image HAVING COUNT(*) > 1) "
                "SELECT image FROM images JOIN again USING (image) WHERE row > first ORDER BY row LIMIT 1"
            )
            refuse_twice(getattr(manifest, "path", ""), (name for (name,) in twice))
            self._draw(images, seed)
            self._refuse_empty(images, roles)
            if pairs:
                self._add_pairs(images)

    def __iter__(self):
        for code, role in enumerate(self.names, 1):
            for piece in self.manifest:
                if (inside := self.codes[piece.index] == code).any():
                    yield piece[inside].reset_index(names="row").assign(role=role)

    def _draw(self, images, seed):
        """Give each row the number of its role, from 1; 0 if it has none."""
        last, count = images.execute("SELECT MAX(row), SUM(NOT paired) FROM images").fetchone()
        dtype, start = np.min_scalar_type(last), 0
        self.codes = array_on_disk(last + 1, np.uint8)
        rows, order, splits = (array_on_disk(count, kind) for kind in (dtype, dtype, np.uint8))
        query = images.execute("SELECT row, split FROM images WHERE NOT paired ORDER BY class, image")
        for numbers, names in pieces_of(query):
            place, start = slice(start, start + len(numbers)), start + len(numbers)
            rows[place], splits[place] = numbers, self.draw.split_codes(names)
        classes, start = images.execute("SELECT DISTINCT class FROM images ORDER BY class"), 0
        counts = {name: np.zeros(len(self.names) + 1, int) for (name,) in classes}
        query = "SELECT class, COUNT(*) FROM images WHERE NOT paired GROUP BY class ORDER BY class"
        sizes = images.execute(query).fetchall()
        for name, size in sizes:
            place, start = slice(start, start + size), start + size
            rng = np.random.default_rng([seed, *name.encode()])
            for members, codes in self.draw.roles(splits[place], order[place], rng):
                self.codes[rows[place][members]] = codes
                counts[name] += np.bincount(codes, minlength=len(counts[name]))
        counts = {name: of_role[1:] for name, of_role in counts.items()}
        self.counts = pd.DataFrame(counts, index=pd.Index(self.names, name="role")).rename_axis("class", axis=1)

    def _refuse_empty(self, images, roles):
        for role, rule in roles.items():
            if self.counts.loc[role].any():
                continue
            split = rule.get("split")
            query = "SELECT COUNT(*), SUM(split = ?) FROM images WHERE NOT paired"
            count, inside = images.execute(query, (split,)).fetchone()
            if split and not inside:
                raise InputError(f"No images are left for role '{role}': no row has the split '{split}'.")
            raise InputError(
                f"No images are left for role '{role}' after the others, of {count} rows of the manifest; take "
                "fewer for the others under roles."
            )

    def _add_pairs(self, images):
        self.names = [*self.names, "pair"]
        for (rows,) in pieces_of(images.execute("SELECT row FROM images WHERE paired")):
            self.codes[list(rows)] = len(self.names)
        numbers = dict(images.execute("SELECT class, COUNT(*) FROM images WHERE paired GROUP BY class"))
        self.counts.loc["pair"] = [numbers.get(name, 0) for name in self.counts]


class Draw:
    """How the members of a class are shared among roles; roles as in ChosenRows, numbered from 1 in falling order."""

    def __init__(self, roles):
        numbers = {role: number for number, role in enumerate(sorted(roles, reverse=True), 1)}
        splits = sorted({rule["split"] for rule in roles.values() if rule.get("split") is not None})
        self.quotas = {split: {} for split in [None, *splits]}
        for role in sorted(roles):
            self.quotas[roles[role].get("split")][numbers[role]] = roles[role]["per_class"]
        self.numbers = {split: number for number, split in enumerate(self.quotas)}

    def split_codes(self, splits):
        """The number of each split, from 1; 0 for one that no role names."""
        return [self.numbers.get(split, 0) for split in splits]

    def roles(self, splits, order, rng):
        """Yield (numbers of members, their roles) of a class, in the order drawn; 0 if a member has no role.

        splits: codes of the members' splits, sorted by the name of the image; order: array to draw in, [member]
        """
        sizes = np.zeros(len(self.quotas), int)
        for start in range(0, len(order), BLOCK):
            stop = min(start + BLOCK, len(order))
            order[start:stop] = np.arange(start, stop)
            sizes += np.bincount(splits[start:stop], minlength=len(sizes))
        rng.shuffle(order)
        rest, *quotas = self.quotas.values()
        shares = [shares_of(of_split, size) for of_split, size in zip(quotas, sizes[1:].tolist())]
        shares.insert(0, shares_of(rest, len(order) - sum(sum(share.values()) for share in shares)))
        ends = [np.cumsum([*share.values()]) for share in shares]
        of_place = [np.array([*share, 0], np.uint8) for share in shares]
        drawn = np.zeros(len(sizes), int)
        for start in range(0, len(order), BLOCK):
            members = order[start : start + BLOCK]
            codes, of_split = np.zeros(len(members), np.uint8), splits[members]
            # Named splits first: a role without a split draws from all remaining images.
            for number in [*range(1, len(sizes)), 0]:
                inside = np.flatnonzero(of_split == number if number else codes == 0)
                places = drawn[number] + np.arange(len(inside))
                codes[inside] = of_place[number][np.searchsorted(ends[number], places, side="right")]
                drawn[number] += len(inside)
            yield members, codes


def shares_of(quotas, size):
    """{role: how many of `size` members it gets}; quotas: {role: most, or "all" that the others leave}."""
    rest = size - sum(quota for quota in quotas.values() if quota != "all")
    rest = max(rest, 0) // max(list(quotas.values()).count("all"), 1)
    quotas, shares = {role: rest if quota == "all" else quota for role, quota in quotas.items()}, {}
    total = sum(quotas.values())
    for role, quota in quotas.items():
        shares[role] = quota if total <= size else quota * size // total
        total, size = total - quota, size - shares[role]
    return shares


def check_requirements(chosen, factors, masks, dataset):
    """Raise InputError listing everything that the config requires of a seed's images and the manifest lacks.

    chosen: pieces of the seed's table; factors: columns that must exist and be filled; masks: whether the eval images
    must have masks
    """
    counts, first, missing = Counter(), {}, []
    for piece in chosen:
        missing = [factor for factor in factors if factor not in piece.columns]
        lacking = {factor: piece["image"][piece[factor] == ""] for factor in factors if factor in piece.columns}
        if masks:
            scored = masked_rows(piece)
            lacking[None] = scored["image"][scored["mask"] == ""]
        for what, images in lacking.items():
            counts[what] += len(images)
            first |= {} if what in first or images.empty else {what: images.iloc[0]}
    problems = [f"The config has '{name}' under factors, but the manifest has no such column." for name in missing]
    problems += [
        f"The factor '{factor}' is blank in {counts[factor]} rows, the first of {first[factor]}."
        for factor in factors
        if counts[factor]
    ]
    if counts[None]:
        problems.append(
            f"{counts[None]} eval images of {dataset} have no mask in the manifest, the first {first[None]}; add "
            "their masks, or set masks: false in the config."
        )
    if problems:
        raise InputError(" ".join(problems))


def shared_images(pieces):
    """Yield images of a seed that are, byte for byte, an image of another role: tables image, role, same_as, its_role.

    pieces: of the seed's table, with the column image_sha256 of with_digests. One table at least, which may be empty.
    """
    columns = ["image", "role", "same_as", "its_role"]
    with database("images (number INTEGER PRIMARY KEY, image TEXT, role TEXT, digest TEXT)") as images:
        for piece in pieces:
            rows = piece[["image", "role", "image_sha256"]].itertuples(index=False)
            images.executemany("INSERT INTO images (image, role, digest) VALUES (?, ?, ?)", rows)
        shared = images.execute(
            "WITH again AS (SELECT digest, MIN(number) AS first FROM images WHERE digest != '' "
            "GROUP BY digest HAVING MIN(role) != MAX(role)) "
            "SELECT images.image, images.role, origin.image, origin.role FROM again JOIN images USING (digest) "
            "JOIN images AS origin ON origin.number = again.first WHERE images.role != origin.role "
            "ORDER BY again.first, images.number"
        )
        yield pd.DataFrame(columns=columns)
        for values in pieces_of(shared):
            yield pd.DataFrame(dict(zip(columns, values)))
