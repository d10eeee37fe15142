"""`pipeline.lock`: leases of jobs on other hosts, whatever their clocks say."""

import json
import os
import time

import pytest

from pipeline.lock import LEASE_SECONDS, LOCK_NAME, LockedError, lock

YEAR_SECONDS = 365 * 86400


def foreign(out, age_seconds, **more):
    """A lease as a job on another host leaves it, renewed so long ago."""
    path = out / LOCK_NAME
    owner = {"host": "node-b", "pid": 7, "started": "2026-01-01 00:00:00", "shared": False}
    path.write_text(json.dumps({**owner, **more}))
    renewed = time.time() - age_seconds
    os.utime(path, (renewed, renewed))
    return path


def test_a_fresh_foreign_lease_is_refused_with_what_to_do(tmp_path):
    path = foreign(tmp_path, LEASE_SECONDS / 2)
    stamp = path.stat().st_mtime
    with pytest.raises(LockedError) as refused, lock(tmp_path, shared=False):
        pass
    words = str(refused.value)
    assert "process 7 on node-b" in words
    assert "run the same command again in 5 min" in words
    assert path.stat().st_mtime == stamp


def test_a_stale_foreign_lease_is_taken_over(tmp_path):
    path = foreign(tmp_path, LEASE_SECONDS + 5)
    with lock(tmp_path, shared=False):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_lease_from_the_future_lasts_no_longer_than_any_other(tmp_path):
    """Its owner may live with a clock that is ahead, so it gets a whole lease from now on."""
    path = foreign(tmp_path, -YEAR_SECONDS)
    with pytest.raises(LockedError, match="again in 10 min"), lock(tmp_path, shared=False):
        pass
    assert abs(path.stat().st_mtime - time.time()) < LEASE_SECONDS / 2
    first = path.stat().st_mtime
    with pytest.raises(LockedError), lock(tmp_path, shared=False):
        pass
    assert path.stat().st_mtime == first  # asking again does not make it last longer
    os.utime(path, (first - LEASE_SECONDS - 5,) * 2)  # ten minutes later, not renewed
    with lock(tmp_path, shared=False):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_hosts_name_in_a_lease_is_printable(tmp_path):
    foreign(tmp_path, 0, host="n\x1b[31mode\nerror: none")
    with pytest.raises(LockedError) as refused, lock(tmp_path, shared=False):
        pass
    assert str(refused.value).isprintable()
