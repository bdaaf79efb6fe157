from engine.tables.run_record import Clock


def test_parts_and_what_lies_between_make_the_total():
    clock = Clock()
    clock.lap("load")
    clock.lap("images")
    laps = clock.laps()
    assert list(laps) == ["load", "images", "total"]
    assert 0 <= laps["load"] + laps["images"] <= laps["total"] + 0.002
