"""`stillroom worker` runs jobs beside a server that runs none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from openai import OpenAI

from tests.support import Server, example_lines, wait_for


def test_a_worker_beside_the_server_runs_its_jobs_and_the_server_serves_the_student(tmp_path: Path) -> None:
    with Server(tmp_path / "data", training_running_jobs=0).start() as server:
        client = OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0)
        file = client.files.create(file=("examples.jsonl", example_lines(12)), purpose="fine-tune")
        method: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}}
        job = client.fine_tuning.jobs.create(model="scratch-small", training_file=file.id, method=method)
        # The control: the server itself validates the job, and leaves it in the queue.
        wait_for(lambda: client.fine_tuning.jobs.retrieve(job.id).status == "queued")

        environment = {**os.environ, "STILLROOM_DATA": str(server.data), "STILLROOM_TRAINING_THREADS": "1"}
        worker = subprocess.Popen([sys.executable, "-m", "stillroom", "worker"], env=environment)
        try:
            wait_for(lambda: client.fine_tuning.jobs.retrieve(job.id).status == "succeeded", seconds=120)
        finally:
            worker.terminate()
            assert worker.wait(timeout=60) == 0
        model = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
        assert model is not None
        question: Any = [{"role": "user", "content": "thing 1"}]
        assert client.chat.completions.create(model=model, messages=question, max_tokens=5).choices
