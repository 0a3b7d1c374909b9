"""Curves for the page: accuracy recovered by explanations, and accuracy by the number of units that are edited."""

from clipspectra.explorer.parts import rounded
from clipspectra.figures.heads import RECOVERY_LINES

RECOVERY_SCORES = ("top1", "explained_variance")


def recovery_curves(table):
    """Curves of a run's table of recovery: of each method its label, colour and scores by budget, as in the figure."""
    curves = []
    for method, (label, colour, style) in RECOVERY_LINES.items():
        rows = table[table["method"] == method].sort_values("budget")
        if rows.empty:
            continue
        curve = {
            "method": method,
            "label": label,
            "colour": colour,
            "dash": {"-": "", "--": "5 3", ":": "1.5 2.5"}[style],
        }
        curve["budget"] = rows["budget"].to_numpy()
        for score in RECOVERY_SCORES:
            bounds = f"{score}_draws" if rows["draws"].max() > 1 else score
            curve[score] = [rounded(rows[column], 4) for column in (score, f"{bounds}_low", f"{bounds}_high")]
        curves.append(curve)
    first = table.iloc[0]
    return {
        "curves": curves,
        "layers": str(first["layers"]),
        "mlps": str(first["mlps"]),
        "images": int(first["images"]),
    }


def intervention_curves(tables):
    """Curves of an intervention: for each seed and group the accuracy, its interval, and that of random units.

    tables: {seed: its table of curves}
    """
    curves = []
    for seed, table in tables.items():
        for (split, group), rows in table.groupby(["split", "group"], sort=False):
            rows = rows.sort_values("units")
            curve = {"seed": str(seed), "split": split, "group": group, "role": rows["role"].iloc[0]}
            curve["units"] = rows["units"].to_numpy()
            for name, columns in {
                "accuracy": ("accuracy", "accuracy_low", "accuracy_high"),
                "random": ("random", "random_draws_low", "random_draws_high"),
            }.items():
                curve[name] = [rounded(rows[column], 4) for column in columns]
            curves.append(curve)
    return curves
