"""Runs the statements of `watershed archive sql`, and prints the rows of a query as JSON.

python ask.py duckdb|clickhouse STATEMENTS QUERY
"""

import decimal
import json
import sys

engine, path, query = sys.argv[1:]
statements = open(path).read()


def plain(value):
    return float(value) if isinstance(value, decimal.Decimal) else value


if engine == "duckdb":
    import duckdb

    connection = duckdb.connect()
    connection.execute(statements)
    result = connection.execute(query)
    names = [column[0] for column in result.description]
    rows = [dict(zip(names, map(plain, row))) for row in result.fetchall()]
else:
    import chdb.session

    session = chdb.session.Session()
    for statement in statements.split(";\n"):
        lines = [line for line in statement.splitlines() if not line.startswith("--")]
        if "".join(lines).strip():
            session.query("\n".join(lines))
    text = session.query(query + " FORMAT JSONEachRow SETTINGS output_format_json_quote_64bit_integers = 0").bytes()
    rows = [json.loads(line) for line in text.decode().splitlines()]
print(json.dumps(rows, default=str))
