"""Explanations as lines of JSON with the keys of the reference implementation, so that its notebooks read them.

The reference's names are what a component says; what it fires on stands beside them, under a key of its own.

A line holds one head, or the whole embedding (layer and head -1). The table of texts is that of HeadExplanation, with
the texts themselves in column `text`, and columns `layer` and `head`.
"""

from clipspectra.contributions.stored import EMBEDDING


def export_lines(explanations, table, algorithm, *, text_mean, accuracy):
    """The lines of {(layer, head): HeadExplanation} in their order, one dict at a time.

    table: texts of all heads; algorithm: "svd_data_approx" for components, "text_span" for TextSpan
    text_mean: mean of the text pool's features [d_embed]; accuracy: with all these heads replaced by their explanations
    The line of the whole embedding also has the accuracy and the number of different texts of the heads.
    """
    algorithm_line = {"svd_data_approx": component_line, "text_span": text_span_line}[algorithm]
    layers = {layer for layer, _ in explanations if layer != EMBEDDING}
    for (layer, head), explanation in explanations.items():
        line = {"layer": layer, "head": head}
        if layer == EMBEDDING:
            texts = table[table["naming"] == "says"] if "naming" in table else table
            text_count = texts[texts["layer"].isin(layers)]["text"].nunique()
            line |= {"accuracy": float(accuracy), "nr_texts": int(text_count)}
        line |= {"mean_values_att": explanation.mean.tolist(), "mean_values_text": text_mean.tolist()}
        yield line | algorithm_line(explanation, table[(table["layer"] == layer) & (table["head"] == head)])


def component_line(explanation, rows):
    """The reference's svd_data_approx of one head, from its HeadExplanation and the rows of its texts.

    project_matrix: projection on the span of the texts, in the coordinates of the components [component, component]
    fires_on, beside the reference's keys: the texts of that naming at both poles, as in naming.name_components
    """
    steps = explanation.components @ explanation.steps.T  # [component, step]
    fires_on, rows = rows[rows["naming"] == "fires_on"], rows[rows["naming"] == "says"]
    singular_values = rows.groupby("component")["singular_value"].first().to_numpy()
    components = [
        {
            "text": component_texts(component_rows),
            "eigen_v_emb": explanation.components[component].tolist(),
            "strength_abs": float(singular_values[component]),
            "strength_rel": float(100 * singular_values[component] / singular_values.sum()),
            "cosine_similarity": float(component_rows[component_rows["pole"] == "top"]["score"].iloc[0]),
            "fires_on": [
                {"pole": row.pole, "text": row.text, "score": float(row.score), "projection": float(row.projection)}
                for row in fires_on[fires_on["component"] == component].itertuples()
            ],
        }
        for component, component_rows in rows.groupby("component")
    ]
    return {
        "project_matrix": (steps @ steps.T).tolist(),
        "vh": explanation.components.tolist(),
        "s": singular_values.tolist(),
        "embeddings_sort": components,
    }


def component_texts(rows):
    """The texts of one component from its rows, the pole with the larger |score| first."""
    poles = {}
    for name, pole in (("max", "top"), ("min", "bottom")):
        pole_rows = rows[rows["pole"] == pole]
        poles[name] = [
            {f"text_{name}_{place}": text, f"corr_{name}_{place}": float(score)}
            for place, (text, score) in enumerate(zip(pole_rows["text"], pole_rows["score"]))
        ]
    top, bottom = (abs(poles[name][0][f"corr_{name}_0"]) for name in ("max", "min"))
    return poles["max"] + poles["min"] if top > bottom else poles["min"] + poles["max"]


def text_span_line(explanation, rows):
    """The reference's text_span of one head; project_matrix is an orthonormal basis of their span [step, d_embed]."""
    texts = [{"text": text} for text in rows["text"]]
    return {"project_matrix": explanation.steps.tolist(), "embeddings_sort": texts}
