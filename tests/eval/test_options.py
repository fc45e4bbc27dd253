"""The command line's presets."""

from eval import options


def test_quick_and_compile_choose_the_effort():
    assert options.Config(quick=True).effort == options.EFFORTS["quick"]
    assert options.Config(compile="no").effort.compiled is False
    assert options.Config().effort.tasks is None
