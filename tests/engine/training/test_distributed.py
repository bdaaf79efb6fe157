import signal
import socket
from datetime import timedelta

import pytest
import torch

from engine.errors import ConfigError, EngineError, UsageError
from engine.training.distributed import SINGLE_PROCESS, Ranks, Signals, is_lost_peer, joined, local_device, resolved_device

CPU = torch.device("cpu")


def test_alone_every_exchange_is_the_identity():
    rows = torch.arange(6.0).view(3, 2)
    assert torch.equal(SINGLE_PROCESS.gathered(rows), rows)
    assert torch.equal(SINGLE_PROCESS.summed(rows), rows)
    assert SINGLE_PROCESS.summed_on_host([1.5]) == [1.5]
    assert SINGLE_PROCESS.agreed("value") == "value"
    SINGLE_PROCESS.check_signals()
    done = []
    SINGLE_PROCESS.first(lambda: done.append(1))
    assert done == [1]


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(CPU, timedelta(seconds=1)) as ranks:
        assert (ranks.rank, ranks.world, ranks.is_first) == (0, 1, True)


def test_each_process_keeps_its_own_rows_of_one_draw():
    def seeded():
        return torch.Generator().manual_seed(4)

    everything = SINGLE_PROCESS.uniform(6, 5, seeded())
    assert torch.equal(torch.cat([Ranks(rank, 3).uniform(2, 5, seeded()) for rank in range(3)]), everything)


def test_images_that_cannot_be_shared_are_refused_with_the_nearest_numbers():
    assert Ranks(0, 4).share(64, "batch.paired") == 16
    with pytest.raises(ConfigError, match=r"batch.paired=6 images cannot be shared by 4 processes.*batch.paired=4 or 8"):
        Ranks(0, 4).share(6, "batch.paired")


def test_a_deferred_signal_is_recorded_then_raised():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        signals = Signals()
        signals.defer()
        signal.raise_signal(signal.SIGTERM)
        assert (signals.pending, heard) == (signal.SIGTERM, [])
        with pytest.raises(SystemExit) as stopped:
            signals.raise_signal(signal.SIGTERM)
        assert stopped.value.code == 143
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM], "while what was done is saved, a second signal is noted again"
        signals.restore()
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_only_a_connection_that_breaks_is_a_lost_peer():
    assert is_lost_peer(RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"))
    assert is_lost_peer(torch.distributed.DistNetworkError("refused"))
    assert not is_lost_peer(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_lost_peer(NotImplementedError("gloo"))


def test_a_run_whose_first_process_never_comes_ends_in_time(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(EngineError, match=r"another process of this run has died or no longer answers.*--resume"),
        joined(CPU, timedelta(seconds=1)),
    ):
        pass


def test_a_cpu_is_shared_by_the_processes_of_a_machine(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_device(CPU) == CPU


def test_a_device_is_one_that_is_there():
    assert resolved_device("cpu") == CPU
    assert resolved_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UsageError, match="no device is called tpu"):
        resolved_device("tpu")
