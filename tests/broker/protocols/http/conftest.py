"""Node that serves the API for each module of tests."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.management import Api, management


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    async with management(tmp_path_factory.mktemp("node")) as served:
        yield served
