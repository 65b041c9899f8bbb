"""Files written in one rename, so that a crash leaves the old file, the new one or none, and never half of one."""

import json
import os
import pathlib


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes UTF-8; folders above the file are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.tmp')
    temporary.write_text(text, encoding='utf-8')
    os.replace(temporary, path)


def write_json(path: pathlib.Path, value: object) -> None:
    """Writes indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + '\n')
