"""Pairs of images that differ in one attribute: what the names of components are judged by.

A manifest brings them in two columns: pair, the same in both images of a pair and blank elsewhere, and changed, the
factor that the two differ in.
"""

from clipspectra import InputError


def check_pairs(pairs, factors, dataset):
    """Raise InputError unless a manifest's rows that have a pair are pairs of two images that differ in one factor.

    factors: the dataset's factor columns. Refused: a manifest without pairs, a pair of another number of images than
    two, a `changed` that is not one of the factors, and a pair whose images differ in other factors, too, or not in
    that one.
    """
    absent = [column for column in ("pair", "changed") if column not in pairs.columns]
    if absent or pairs.empty:
        raise InputError(
            f"The config asks for pairs of {dataset} (pairs: true), but its manifest has none: fill the columns pair "
            "and changed, or set pairs: false."
        )
    for factor in factors:
        if factor not in pairs.columns:
            raise InputError(
                f"The config has '{factor}' under factors, but the manifest of {dataset} has no such column."
            )
    sizes = pairs.groupby("pair", sort=False).size()
    if len(wrong := sizes[sizes != 2]):
        raise InputError(
            f"The pair {wrong.index[0]!r} of {dataset} has {_images(wrong.iloc[0])}, not two (wrong pairs in all: "
            f"{len(wrong)}). Complete it in the manifest, or leave its column pair blank."
        )
    if len(blank := pairs[pairs["changed"] == ""]):
        raise InputError(
            f"The pair {blank['pair'].iloc[0]!r} of {dataset} has a blank 'changed'; write there which factor differs."
        )
    if unknown := sorted(set(pairs["changed"]) - set(factors)):
        name, known = pairs.loc[pairs["changed"] == unknown[0], "pair"].iloc[0], ", ".join(factors) or "none"
        raise InputError(
            f"The pair {name!r} of {dataset} has changed {unknown[0]!r}, which is not one of the factors in the config "
            f"(known: {known})."
        )
    first, second = pair_halves(pairs)
    if (differs := first["changed"].to_numpy() != second["changed"].to_numpy()).any():
        row, other = first[differs].iloc[0], second[differs].iloc[0]
        raise InputError(
            f"The two rows of the pair {row['pair']!r} of {dataset} have different values of changed, "
            f"{row['changed']!r} and {other['changed']!r}; write the same factor in both."
        )
    for column in factors:
        differs = first[column].to_numpy() != second[column].to_numpy()
        changed = first["changed"].to_numpy() == column
        for wrong, problem in (
            (differs & ~changed, f"also differ in {column!r}"),
            (changed & ~differs, "do not differ in it"),
        ):
            if wrong.any():
                row = first[wrong].iloc[0]
                raise InputError(
                    f"The pair {row['pair']!r} of {dataset} has changed {row['changed']!r}, but its images {problem}. "
                    "The two must differ in that factor and in no other; correct the manifest."
                )


def pair_halves(pairs):
    """The first and the second image of each pair, two tables in the same order, from a table of paired images."""
    first = pairs.drop_duplicates("pair")
    second = pairs.drop(first.index).set_index("pair", drop=False).loc[first["pair"]]
    return first, second


def _images(count):
    return "one image" if count == 1 else f"{count} images"
