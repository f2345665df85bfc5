def test_x(tiny_run):
    print(list(tiny_run.rglob("*")))
