import platform
import subprocess
import sys

import pytest


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no mallopt")
def test_freed_memory_comes_back_without_fresh_pages() -> None:
    program = """if True:
        import resource
        from engine.intake.sandbox import keep_freed_memory

        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            [bytearray(15 << 20) for _ in range(4)]
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        fresh = [faults() for _ in range(3)][-1]
        keep_freed_memory()
        print(fresh, [faults() for _ in range(3)][-1])
    """
    fresh, kept = map(int, subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split())
    assert kept < fresh / 10
