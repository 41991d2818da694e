"""The built-in simulator: machines that behave like Windows Update on the recorded catalogue (docs/simulator.md)."""

from connectors.simulator.configuration import SimulatorConfiguration
from connectors.simulator.connector import Simulator, make
from connectors.simulator.ledger import Answer, Course, CourseStep, FileLedger, Ledger, MemoryLedger
from connectors.simulator.misfortunes import MISFORTUNE_TAG, Misfortune, misfortune_text

__all__ = [
    "MISFORTUNE_TAG",
    "Answer",
    "Course",
    "CourseStep",
    "FileLedger",
    "Ledger",
    "MemoryLedger",
    "Misfortune",
    "Simulator",
    "SimulatorConfiguration",
    "make",
    "misfortune_text",
]
