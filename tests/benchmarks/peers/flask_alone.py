"""What Flask and gunicorn take by themselves: it reads the body and does nothing."""

from flask import Flask, request

app = Flask(__name__)


@app.post("/notify/<merchant>/<token>")
def notify(merchant: str, token: str) -> str:
    request.get_data()
    return "success"
