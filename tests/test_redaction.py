import pytest

from assay.redaction import Redactor


@pytest.mark.parametrize(
    "name",
    ["AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "HF_TOKEN", "OPENAI_API_KEY", "WANDB_APIKEY", "db_password"],
)
def test_the_value_of_a_variable_named_like_a_secret_is_replaced_wherever_it_stands(name):
    redact = Redactor({name: "canary-4711"})
    assert redact(f"{name}=canary-4711; again canary-4711!") == f"{name}=***; again ***!"


def test_what_is_no_secret_stays():
    redact = Redactor(
        {"HOME": "/home/me", "TOKEN_FILE": "/run/token", "AWS_ACCESS_KEY_ID": "AKIA4711", "USE_TOKEN": "true", "A": "b"}
    )
    text = "true: /home/me holds AKIA4711 and /run/token, b"
    assert redact(text) == text


def test_a_password_in_an_address_is_replaced_as_it_is_written_and_as_it_is_meant():
    redact = Redactor({"MLFLOW_TRACKING_URI": "postgresql://me:s%20esame@db:5432/runs"})
    assert redact("postgresql://me:s%20esame@db:5432/runs") == "postgresql://me:***@db:5432/runs"
    assert redact("password 's esame' was refused") == "password '***' was refused"


def test_a_longer_secret_is_not_left_half_standing_by_a_shorter_one_in_it():
    assert Redactor({"A_TOKEN": "canary", "B_TOKEN": "canary-4711"})("canary-4711 canary") == "*** ***"


def test_every_line_of_a_private_key_is_replaced():
    redact = Redactor({"SIGNING_PRIVATE_KEY": "-----BEGIN-----\nMIIEvQIBADANBg\n-----END-----"})
    assert redact("MIIEvQIBADANBg\n") == "***\n"


def test_secret_keys_of_the_credentials_file_are_replaced_and_a_broken_file_is_no_matter(tmp_path):
    file = tmp_path / "credentials"
    file.write_text("[assay]\naws_access_key_id = AKIA4711\naws_secret_access_key = canary-4711\n")
    redact = Redactor({"AWS_SHARED_CREDENTIALS_FILE": str(file)})
    assert redact("AKIA4711 canary-4711") == "AKIA4711 ***"
    file.write_text("no section = here\n")
    assert Redactor({"AWS_SHARED_CREDENTIALS_FILE": str(file)})("text") == "text"


def test_an_environment_without_secrets_changes_nothing():
    assert Redactor({})("text") == "text"
