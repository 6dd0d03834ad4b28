"""The page, as its text says it; what a browser makes of it: tests/browser."""

from __future__ import annotations

from pathlib import Path

from api.conftest import Serve
from api.sim import Sim, unit


async def test_a_wide_graph_is_reached_by_the_keyboard(serve: Serve, tmp_path: Path) -> None:
    sim = Sim(tmp_path)
    async with serve(sim) as running, running.status() as http:
        assert "How units depend" not in (await http.get("/")).text
        sim.units.all["web"] = unit("web", requires=("worker",))
        page = (await http.get("/")).text
        assert '<div tabindex="0" role="group" aria-label="How units depend"><svg/></div>' in page
