"""Runs `mmclip` in forks of one process that has imported its libraries, as every start costs three seconds of imports.

Reads requests from stdin, a JSON object a line: arguments, cwd, env, and files for stdout and stderr; answers each with its exit code.
"""

import importlib
import json
import os
import sys

from mmclip_cli.app import main

LIBRARIES = (
    *("torch", "transformers.models.clip.modeling_clip", "transformers.models.clip.configuration_clip", "sklearn.linear_model"),
    *("engine.evaluate", "engine.finetune", "engine.ingest", "engine.pretrain", "engine.score", "engine.html_report"),
    *("engine.model.bundle", "engine.evaluation.html", "engine.evaluation.from_scores", "engine.recipe.loader", "matplotlib.figure"),
    *(f"mmclip_cli.{verb}" for verb in ("score", "evaluate", "finetune", "ingest", "models", "pretrain", "recipes", "doctor")),
)


def run(request):
    """Become the command: never returns."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["mmclip", *request["arguments"]]
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve():
    """Answer requests until stdin ends."""
    for library in LIBRARIES:
        importlib.import_module(library)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            run(json.loads(line))
        _, status = os.waitpid(pid, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


if __name__ == "__main__":
    serve()
