"""The report's part about latent actions: what a tokenizer that never saw an action reads off the run's own videos."""

from __future__ import annotations

from wam.visualization.figure_tables import figure_tables
from wam.visualization.markup import escape, pixels, section
from wam.visualization.run_files import RunFiles

FIRST = (
    "probe_r2",
    "probe_r2_worst_axis",
    "probe_r2_shuffled",
    "probe_r2_task",
    "probe_r2_action",
    "simulator_sensitivity",
)
"""The figures that a newcomer sees at once; the others are folded away."""


def latent_actions(run: RunFiles) -> str:
    """Nothing where no tokenizer was measured."""
    if run.latent is None:
        return ""
    first, rest = figure_tables(run.latent.summary, FIRST)
    pictures = "".join(
        f'<figure class="card"><figcaption>{escape(title)}</figcaption><div class="scroll">{pixels(png, title)}</div></figure>'
        for title, png in run.latent.pictures.values()
    )
    return section(
        "latent",
        "Actions without labels",
        first,
        f'<div class="strips wide">{pictures}</div>',
        rest,
        intro="A tokenizer that learned from videos alone, people's and robots', and never saw an action, looks at two frames "
        "and names what happened between them by a few codes. Probes ask how much of the hand's true motion the codes tell; "
        "the pictures show what a code does when it drives another frame.",
    )
