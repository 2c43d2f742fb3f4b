"""Writes down which keys of the configuration a process reads: VERL_USE_EXTERNAL_MODULES=...,record_reads."""

import os
from pathlib import Path

from aem_swe.engines.rllm.reads import record_into

if folder := os.environ.get("AEM_SWE_TRACE_FOLDER"):
    record_into(Path(folder))
