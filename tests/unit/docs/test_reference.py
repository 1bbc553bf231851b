from docs.reference.generate import documents


def test_the_checked_in_reference_is_what_the_models_say() -> None:
    stale = [path.name for path, text in documents().items() if not path.exists() or path.read_text() != text]
    assert stale == [], "run: python docs/reference/generate.py"
