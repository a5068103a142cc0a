"""Output of the doctor: a coloured table for a person, lines or JSON for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from intentctl.doctor.finding import Finding, Severity
from intentctl.output import Column, console, print_json, print_table
from serving.domain.drift import Drift, Signal, Verdict
from serving.domain.wording import counted
from serving.telemetry.foreign_text import shown
from serving.wire.traffic_client import ModelTraffic

_STYLES: Final = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
_VERDICTS: Final = {Verdict.STRONG: "bold red", Verdict.SOME: "yellow", Verdict.NONE: "green", Verdict.TOO_FEW: "dim"}
_ORDER: Final = {severity: number for number, severity in enumerate(Severity)}


@dataclass(frozen=True, slots=True)
class Report:
    """All findings about one model."""

    model_id: str
    findings: Sequence[Finding]
    traffic: ModelTraffic | None
    drift: Drift | None

    @property
    def is_healthy(self) -> bool:
        """Whether there are no findings other than notes."""
        return all(finding.severity is Severity.NOTE for finding in self.findings)

    @property
    def in_order(self) -> list[Finding]:
        """Findings, the worst first."""
        return sorted(self.findings, key=lambda finding: _ORDER[finding.severity])

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON fields for scripts."""
        return {
            "id": self.model_id,
            "healthy": self.is_healthy,
            "findings": [finding.as_dict() for finding in self.in_order],
            "traffic": self.traffic.as_dict() if self.traffic else None,
            "drift": self.drift.as_dict() if self.drift else None,
        }


def print_report(report: Report, *, as_json: bool) -> None:
    """Print the report as JSON, as a table on a terminal, or as lines for scripts."""
    if as_json:
        print_json(report.as_dict())
    elif console.is_terminal:
        _show(report)
    else:
        columns = [Column(name) for name in ("severity", "check", "problem", "advice")]
        print_table(columns, [list(finding.as_dict().values()) for finding in report.in_order])


def _show(report: Report) -> None:
    if report.findings:
        table = Table(show_lines=True)
        for name in ("", "problem", "what to do"):
            table.add_column(name, overflow="fold")
        for finding in report.in_order:
            problem = Text(shown(finding.problem)).append(f"\n{finding.check}", style="dim")
            table.add_row(Text(finding.severity, style=_STYLES[finding.severity]), problem, Text(shown(finding.advice)))
        console.print(table)
    if report.drift is not None:
        console.print(_drift_table(report.drift))
    counts = {severity: sum(finding.severity is severity for finding in report.findings) for severity in Severity}
    totals = ", ".join(counted(count, severity) for severity, count in counts.items())
    verdict = "[green]healthy[/]" if report.is_healthy else "[bold red]not healthy[/]"
    console.print(f"{report.model_id}: {verdict} ({totals})", highlight=False, soft_wrap=True)


def _drift_table(drift: Drift) -> Table:
    table = Table(
        title=f"{counted(drift.documents, 'document')}, compared with {drift.validated} of the validation",
        title_style="",
    )
    for name in ("signal", "validated", "asked", "change", "by chance", "drift"):
        table.add_column(name, justify="left" if name in ("signal", "drift") else "right")
    for signal in drift.signals:
        table.add_row(*_row(signal), Text(signal.verdict, style=_VERDICTS[signal.verdict]))
    return table


def _row(signal: Signal) -> list[str]:
    shares = [f"{share:.1%}" if share is not None else "" for share in (signal.baseline_share, signal.live_share)]
    change = f"{signal.change:.3f}" if signal.live_share is None else f"{signal.change:+z.1%}"
    chance = f"{signal.by_chance:.3f}" if signal.live_share is None else f"{signal.by_chance:.1%}"
    return [signal.name.replace("_", " "), *shares, change, f"< {chance}"]
