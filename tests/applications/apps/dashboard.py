"""A Dash application with one callback."""

from dash import Dash, Input, Output, dcc, html

dashboard = Dash(__name__)
dashboard.layout = html.Div([dcc.Input(id="name", value="there"), html.P(id="greeting")])


@dashboard.callback(Output("greeting", "children"), Input("name", "value"))
def greet(name):
    """Answers to each change of the name."""
    return f"hello {name}"


app = dashboard.server
