"""The report's part about a student: what it keeps of its teacher's success, and what a chunk costs."""

from __future__ import annotations

from wam.visualization.figure_tables import figure_tables
from wam.visualization.markup import bar, section, table
from wam.visualization.run_files import RunFiles

SIDES = {
    "teacher": ("the model above, asked directly", "success_teacher", "chunk_ms_teacher_direct"),
    "student": ("its student", "success_student", ""),
    "served": ("the student, exported to ONNX, behind a server", "success_served", "chunk_ms_served"),
}
FIRST = ("retained", "retained_low", "retained_high")
"""The figures that a newcomer sees at once; the others are folded away."""


def student(run: RunFiles) -> str:
    """Nothing where none was measured."""
    if run.student is None:
        return ""
    found, counts = run.student.summary.get("figures") or {}, run.student.summary.get("n") or {}
    rows = []
    for says, success, cost in SIDES.values():
        if success in found:
            rate = found[success]
            spent = f"{found[cost]:.1f} ms" if cost in found else ""
            rows.append([says, bar(rate, rate, rate), f"{rate:.0%}", str(counts.get(success, "")), spent])
    first, rest = figure_tables(run.student.summary, FIRST)
    return section(
        "student",
        "A student for real-time control",
        table(["who drives", "", "solved", "episodes", "a chunk costs"], rows, numeric=(2, 3, 4)),
        first,
        rest,
        intro="A world model is slow. A compact student learned from what it would do, on recorded frames and on ones that it "
        "imagined, and drives alone. All start where training never did. The time of a chunk runs from a "
        "picture to actions, through a websocket where there is a server, on the machine of this page.",
    )
