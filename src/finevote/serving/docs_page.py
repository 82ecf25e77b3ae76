"""The page at /docs: the OpenAPI document as plain HTML. No script, nothing from elsewhere, so it works offline."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h2{margin-top:2.5rem;border-top:1px solid #8886;padding-top:1.5rem}
code,pre{font:14px/1.45 ui-monospace,monospace}
pre{padding:.8rem 1rem;overflow:auto;background:#8882;border-radius:6px}
table{border-collapse:collapse;width:100%;margin:.5rem 0 1rem}
th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #8884}
.method{font-weight:700;margin-right:.6rem}
"""
Document = Mapping[str, Any]


def docs_page(document: Document) -> str:
    """Return an OpenAPI document as a page for people."""
    info = document["info"]
    parts = [
        _operation(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = document.get("components", {}).get("schemas", {})
    title = escape(info["title"])
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f"{_paragraphs(info.get('description', ''))}"
        f'<p>For programs: <a href="/openapi.json">/openapi.json</a>.</p>\n'
        f"{''.join(parts)}<h2>Values</h2>\n{''.join(_schema(name, schema) for name, schema in schemas.items())}"
        "</body>\n</html>\n"
    )


def _operation(path: str, method: str, operation: Document) -> str:
    rows = [
        (item["name"], _type_of(item.get("schema", {})), item.get("description", ""), item.get("schema", {}))
        for item in operation.get("parameters", [])
    ]
    asked = _table(
        ("query", "type", "meaning", "unless given"),
        [(name, kind, about, _default(schema)) for name, kind, about, schema in rows],
    )
    bodies = ", ".join(f"<code>{escape(kind)}</code>" for kind in operation.get("requestBody", {}).get("content", {}))
    answers = _table(
        ("status", "answer", "meaning"),
        [(status, _answer_of(answer), answer["description"]) for status, answer in operation["responses"].items()],
    )
    example = operation.get("x-example", "")
    return (
        f'<h2><span class="method">{method.upper()}</span><code>{escape(path)}</code></h2>\n'
        f"{_paragraphs(operation.get('description') or operation.get('summary', ''))}"
        f"{f'<pre>{escape(example)}</pre>' if example else ''}"
        f"{f'<p>Body: {bodies}</p>' if bodies else ''}{asked if rows else ''}{answers}"
    )


def _schema(name: str, schema: Document) -> str:
    rows = [
        (field, _type_of(about), about.get("description", "")) for field, about in schema.get("properties", {}).items()
    ]
    if not rows:
        return ""
    return (
        f'<h3 id="{escape(name)}">{escape(name)}</h3>\n{_paragraphs(schema.get("description", ""))}'
        f"{_table(('field', 'type', 'meaning'), rows)}"
    )


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    top = "".join(f"<th>{head}</th>" for head in heads)
    body = "".join(
        f"<tr><td><code>{escape(first)}</code></td>{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>\n"
        for first, *rest in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table>\n"


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{escape(part)}</p>\n" for part in text.split("\n\n") if part.strip())


def _answer_of(answer: Document) -> str:
    return ", ".join(
        f"{_type_of(content.get('schema', {}))} ({kind})" for kind, content in answer.get("content", {}).items()
    )


def _default(schema: Document) -> str:
    return "" if schema.get("default") is None else str(schema["default"])


def _type_of(schema: Document) -> str:
    """Return a schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_type_of(option) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " or ".join(map(str, schema.get("enum", [schema.get("const")])))
    kind = str(schema.get("type", ""))
    return f"list of {_type_of(schema['items'])}" if kind == "array" and "items" in schema else kind
