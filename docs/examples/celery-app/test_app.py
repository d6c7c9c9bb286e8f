"""No import is lost, however long it takes."""

import app
import naive
import pytest
from celery.contrib.testing.worker import start_worker
from kombu import pools


@pytest.fixture(autouse=True)
def connections(amqp):
    """Kombu keeps them for longer than the applications that use them."""
    yield
    pools.reset()


@pytest.fixture(
    params=[
        app.make_app,
        pytest.param(
            naive.make_app,
            marks=pytest.mark.xfail(
                strict=True, raises=AssertionError, reason="what goes round in a circle is dropped"
            ),
        ),
    ],
    ids=["app", "naive"],
)
def make_app(request):
    """Strictly: if the bug were not found, this would fail."""
    return request.param


def test_imports_wait_while_there_is_no_worker(amqp, make_app):
    with make_app(amqp.url) as celery:
        celery.tasks["import_file"].delay("a.csv")
        amqp.expect("imports", count=1)
        amqp.advance(hours=3)
        amqp.expect("imports", count=1)


def test_what_has_failed_is_tried_again_ten_minutes_later(amqp, tmp_path):
    file = tmp_path / "a.csv"
    with app.make_app(amqp.url) as celery:
        celery.conf.broker_heartbeat = 0  # else its loop sleeps for ten seconds now and then
        with start_worker(celery, pool="threads", concurrency=1, perform_ping_check=False):
            celery.tasks["import_file"].delay(str(file))
            amqp.expect("imports.retry", count=1, within=20)
            file.touch()
            amqp.advance(minutes=10)
            amqp.expect("imports", count=0, within=20)
    assert [each.name for each in tmp_path.iterdir()] == ["a.imported"]
