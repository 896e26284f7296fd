"""What the pages of runs in MLflow say first: where a result came from, as a table in markdown with links."""

from typing import Any


def run_link(experiment_id: str, run_id: str) -> str:
    """A run's address inside the MLflow UI."""
    return f"#/experiments/{experiment_id}/runs/{run_id}"


def lineage_note(rows: list[dict[str, Any]], experiment_id: str) -> str:
    """The lineage of a workflow as a table in markdown, cached stages with the run that made them."""
    lines = ["| stage | state | key | result | made by |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        run_id = row.get("mlflow_run_id") or ""
        link = f"[{run_id[:8]}]({run_link(experiment_id, run_id)})" if run_id else ""
        lines.append(f"| {row['stage']} | {row['state']} | {row['key']} | {row.get('result', '')} | {link} |")
    return "\n".join(lines)
