"""Random jobs on all control planes."""

from __future__ import annotations

from tests.property.job_machine import JobMachine
from tests.protocol.profile import profile

JobMachine.TestCase.settings = profile(150, steps=30)
TestRandomJobs = JobMachine.TestCase
