"""Push and pull against a hub of this machine: files come back byte by byte, faults are one line each."""

import hashlib
import json
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

import finevote
from finevote.bundle.manifest import CALIBRATION_NAME, MANIFEST_NAME, WEIGHTS_NAME, content_hash, read_manifest
from finevote.bundle.read import load_bundle
from finevote.errors import ArgumentError, BundleError, HubError, StorageError
from finevote.sharing.pull import pull
from finevote.sharing.push import push

NAME = "me/colours"

# of the client's own code, which sends large files so
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload:DeprecationWarning")


@pytest.fixture
def pushed(hub, measured_run):
    push(measured_run, NAME)
    return hub


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def edit_manifest(hub, change, *, resign=True) -> None:
    """Put a changed bundle.json into the repository, as somebody would who means harm."""
    repository = hub.repositories[NAME]
    content = json.loads(repository.files[MANIFEST_NAME])
    change(content)
    if resign:
        content.pop("sha256")
        content["sha256"] = content_hash(content)
    repository.commit({**repository.files, MANIFEST_NAME: json.dumps(content).encode()})


def test_what_is_pulled_is_what_was_pushed_byte_by_byte(pushed, measured_run, tmp_path):
    done = pull(NAME, tmp_path / "fetched")
    fetched, bundle = contents(done.folder), contents(measured_run / "bundle")
    assert fetched.pop("README.md").startswith(b"---\n")
    assert fetched == bundle
    assert done.commit == pushed.repositories[NAME].head


@pytest.mark.usefixtures("pushed")
def test_a_pulled_bundle_answers_as_the_run_does(measured_run, tmp_path):
    folder = pull(NAME, tmp_path / "fetched").folder
    photograph = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    assert finevote.load(folder).predict(photograph) == finevote.load(measured_run).predict(photograph)


def test_everything_is_sent_in_one_commit_with_the_message(hub, measured_run):
    push(measured_run, NAME, message="first try")
    repository = hub.repositories[NAME]
    assert repository.messages == ["initial commit", "first try"]
    assert set(repository.files) == {".gitattributes", "README.md", MANIFEST_NAME, WEIGHTS_NAME, CALIBRATION_NAME}


def test_pushing_the_same_again_changes_nothing(pushed, measured_run):
    before = pushed.repositories[NAME].files
    push(measured_run, NAME)
    assert pushed.repositories[NAME].files == before


def test_a_part_that_the_new_bundle_lacks_is_removed_and_other_files_stay(pushed, measured_run, tmp_path):
    repository = pushed.repositories[NAME]
    repository.commit({**repository.files, "notes.txt": b"mine", "other.safetensors": b"mine too"})
    run = shutil.copytree(measured_run, tmp_path / "run")
    without_calibration(run / "bundle")
    push(run, NAME)
    assert CALIBRATION_NAME not in repository.files
    assert {"notes.txt", "other.safetensors"} <= repository.files.keys()


def without_calibration(bundle: Path) -> None:
    content = json.loads((bundle / MANIFEST_NAME).read_text())
    content.pop("sha256")
    del content["files"][CALIBRATION_NAME]
    (bundle / MANIFEST_NAME).write_text(json.dumps({**content, "sha256": content_hash(content)}))
    (bundle / CALIBRATION_NAME).unlink()


def test_a_private_repository_is_made_private(hub, measured_run):
    push(measured_run, NAME, private=True)
    assert hub.repositories[NAME].private


@pytest.mark.usefixtures("pushed")
def test_a_public_repository_is_not_taken_for_a_private_one(measured_run):
    with pytest.raises(HubError, match="me/colours is public already: make it private on its page"):
        push(measured_run, NAME, private=True)


def test_a_dry_run_asks_the_hub_nothing(hub, measured_run):
    parcel = push(measured_run, NAME, dry_run=True).parcel
    assert hub.asked == []
    assert set(parcel.files) == {"README.md", MANIFEST_NAME, WEIGHTS_NAME, CALIBRATION_NAME}


def test_a_bundle_alone_can_be_pushed(hub, measured_run, tmp_path):
    bundle = shutil.copytree(measured_run / "bundle", tmp_path / "alone")
    push(bundle, NAME)
    assert b"Nothing was measured with these weights." in hub.repositories[NAME].files["README.md"]


def test_a_damaged_bundle_is_not_pushed(hub, measured_run, tmp_path):
    run = shutil.copytree(measured_run, tmp_path / "run")
    (run / "bundle" / WEIGHTS_NAME).write_bytes(b"short")
    with pytest.raises(BundleError, match=r"model.safetensors has 5 bytes instead of"):
        push(run, NAME)
    assert hub.asked == []


def test_the_gallery_stays_here_unless_it_is_asked_for(hub, measured_run, tmp_path):
    from finevote.measure.gallery import collect

    run = shutil.copytree(measured_run, tmp_path / "run")
    collect(run)
    done = push(run, NAME)
    assert "gallery.json" not in hub.repositories[NAME].files
    assert any("--with-gallery" in note for note in done.parcel.notes)
    assert load_bundle(pull(NAME, tmp_path / "without").folder).class_names == ("blue", "green", "red")
    push(run, NAME, with_gallery=True)
    fetched = contents(pull(NAME, tmp_path / "with").folder)
    fetched.pop("README.md")
    assert fetched == contents(run / "bundle")


# Reading: what comes must be what was written, and no more than that.


def test_an_older_version_can_be_pulled_by_its_commit(pushed, tmp_path):
    repository = pushed.repositories[NAME]
    first = repository.head
    repository.commit({"notes.txt": b"all gone"})
    assert pull(NAME, tmp_path / "old", revision=first).commit == first


def test_files_that_are_no_part_of_the_bundle_stay_on_the_hub(pushed, tmp_path):
    repository = pushed.repositories[NAME]
    repository.commit({**repository.files, "setup.py": b"raise SystemExit", "sub/model.bin": b"?"})
    done = pull(NAME, tmp_path / "fetched")
    assert done.left == ("setup.py", "sub/model.bin")
    assert "setup.py" not in contents(done.folder)
    assert not any("setup.py" in path for path in pushed.asked)


@pytest.mark.parametrize(
    "name", ["../escaped.safetensors", "/tmp/escaped.safetensors", "sub/part.safetensors", "run.py", ".hidden.json", ""]
)
def test_a_name_that_leads_elsewhere_is_refused(pushed, tmp_path, name):
    entry = {"size_bytes": 4, "sha256": hashlib.sha256(b"evil").hexdigest()}
    edit_manifest(pushed, lambda content: content["files"].update({name: entry}))
    with pytest.raises(HubError, match=r"me/colours is refused: its bundle.json lists .* which is no part of a bundle"):
        pull(NAME, tmp_path / "in" / "fetched")
    assert [path.name for path in tmp_path.rglob("*")] in ([], ["in"])


def test_a_changed_file_is_refused_and_nothing_is_left(pushed, tmp_path):
    repository = pushed.repositories[NAME]
    weights = bytearray(repository.files[WEIGHTS_NAME])
    weights[-1] ^= 1
    repository.commit({**repository.files, WEIGHTS_NAME: bytes(weights)})
    with pytest.raises(BundleError, match=r"model.safetensors was changed \(its SHA-256 differs\)"):
        pull(NAME, tmp_path / "fetched")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_manifest_is_refused(pushed, tmp_path):
    edit_manifest(pushed, lambda content: content["class_names"].reverse(), resign=False)
    with pytest.raises(BundleError, match="was changed after it was written"):
        pull(NAME, tmp_path / "fetched")


def test_a_file_of_another_size_is_refused_before_it_is_fetched(pushed, tmp_path):
    pushed.sizes[WEIGHTS_NAME] = 10**15
    with pytest.raises(HubError, match=r"model.safetensors has 1,000,000,000,000,000 bytes instead of"):
        pull(NAME, tmp_path / "fetched")
    assert not any(path.startswith("GET") and WEIGHTS_NAME in path for path in pushed.asked)


def test_a_manifest_of_monstrous_size_is_not_read(pushed, tmp_path):
    pushed.sizes[MANIFEST_NAME] = 2**40
    with pytest.raises(HubError, match=r"its bundle.json has .* at most 67,108,864 are read"):
        pull(NAME, tmp_path / "fetched")


def test_a_missing_file_is_named(pushed, tmp_path):
    repository = pushed.repositories[NAME]
    repository.commit({name: content for name, content in repository.files.items() if name != WEIGHTS_NAME})
    with pytest.raises(HubError, match=r"me/colours is not whole: it lacks model.safetensors"):
        pull(NAME, tmp_path / "fetched")


def test_a_repository_of_something_else_is_told(hub, tmp_path):
    from tests.sharing.model_hub import Repository

    hub.repositories[NAME] = Repository()
    with pytest.raises(HubError, match=r"me/colours is no bundle of finevote: it has no bundle.json"):
        pull(NAME, tmp_path / "fetched")


def test_a_download_that_broke_off_leaves_nothing(pushed, tmp_path):
    pushed.cut_after[WEIGHTS_NAME] = 0
    with pytest.raises(HubError, match=r"cannot fetch me/colours: .*broke off in the middle of a file: run it again"):
        pull(NAME, tmp_path / "fetched")
    assert list(tmp_path.iterdir()) == []


def test_a_download_goes_on_where_it_broke_off(pushed, measured_run, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    pushed.cut_after[WEIGHTS_NAME] = 50_000
    fetched = pull(NAME, tmp_path / "fetched").folder
    assert (fetched / WEIGHTS_NAME).read_bytes() == (measured_run / "bundle" / WEIGHTS_NAME).read_bytes()


def test_a_place_that_is_taken_is_refused_before_the_hub_is_asked(pushed, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    asked = len(pushed.asked)
    with pytest.raises(StorageError, match="already exists: give another DIR"):
        pull(NAME, tmp_path)
    assert len(pushed.asked) == asked


@pytest.mark.usefixtures("pushed")
def test_the_client_s_own_notes_are_not_left_in_the_folder(tmp_path):
    folder = pull(NAME, tmp_path / "fetched").folder
    assert not (folder / ".cache").exists()
    assert all(stat.S_ISREG(path.lstat().st_mode) for path in folder.iterdir())


def test_what_a_hub_puts_beside_a_bundle_does_not_keep_it_from_loading(measured_run, tmp_path):
    bundle = shutil.copytree(measured_run / "bundle", tmp_path / "cloned")
    (bundle / "README.md").write_text("a card")
    (bundle / ".gitattributes").write_text("*.safetensors filter=lfs")
    (bundle / ".git").mkdir()
    assert load_bundle(bundle).class_names == ("blue", "green", "red")


# What goes wrong with the hub itself.


@pytest.mark.parametrize(
    "name", ["colours", "a/b/c", "../colours", "me/", "me/..", "me/a b", "http://x/y", "me/x.git", "-"]
)
def test_a_name_of_another_form_is_refused(hub, measured_run, name):
    for command in (lambda: push(measured_run, name), lambda: pull(name)):
        with pytest.raises(ArgumentError, match="is no name of a repository on the hub: give OWNER/NAME"):
            command()
    assert hub.asked == []


@pytest.mark.usefixtures("hub")
def test_who_is_not_logged_in_is_told_how(measured_run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="cannot write to me/colours: you are not logged in to the hub: log in with `hf"):
        push(measured_run, NAME)


@pytest.mark.usefixtures("hub")
def test_a_token_that_is_not_taken_is_told(measured_run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    with pytest.raises(HubError, match="the hub does not take your token: log in"):
        push(measured_run, NAME)


@pytest.mark.usefixtures("hub")
def test_a_place_that_one_may_not_write_to_is_told(measured_run):
    with pytest.raises(HubError, match="cannot write to others/colours: you have no right to write there"):
        push(measured_run, "others/colours")


def test_a_repository_of_others_is_not_written_to(pushed, measured_run):
    pushed.repositories["others/colours"] = pushed.repositories[NAME]
    with pytest.raises(HubError, match="you have no right to write there"):
        push(measured_run, "others/colours")


def test_a_repository_that_changed_meanwhile_is_not_overwritten(pushed, measured_run):
    pushed.statuses["/commit/"] = 412
    with pytest.raises(HubError, match="it was changed at the same time: run it again"):
        push(measured_run, NAME, message="again")


@pytest.mark.parametrize("is_private", [False, True])
def test_a_repository_that_is_not_there_or_not_for_all_is_told(pushed, tmp_path, monkeypatch, is_private):
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    pushed.repositories[NAME].private = is_private
    name = NAME if is_private else "me/nothing"
    with pytest.raises(HubError, match=f"there is no repository {name} that you can see: check the name; if it is"):
        pull(name, tmp_path / "fetched")


@pytest.mark.usefixtures("pushed")
def test_a_revision_that_is_not_there_is_told(tmp_path):
    with pytest.raises(HubError, match="me/colours at v9 has no such revision: give a branch, a tag or a commit"):
        pull(NAME, tmp_path / "fetched", revision="v9")


def test_a_hub_that_is_ill_is_told(pushed, tmp_path):
    pushed.statuses["/api/models/"] = 503
    with pytest.raises(HubError, match="cannot fetch me/colours: the hub answers 503: try again later"):
        pull(NAME, tmp_path / "fetched")


def test_an_upload_that_is_refused_says_why(hub, measured_run):
    hub.statuses["/large/"] = 413
    with pytest.raises(HubError, match="cannot write to me/colours: a file is too large for it"):
        push(measured_run, NAME)
    assert hub.repositories[NAME].messages == ["initial commit"]


@pytest.mark.usefixtures("hub")
def test_no_network_is_told(measured_run, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for command in (lambda: push(measured_run, NAME), lambda: pull(NAME, tmp_path / "fetched")):
        with pytest.raises(HubError, match=r"http://127.0.0.1:9 cannot be reached \(.*\): check the network"):
            command()


@pytest.mark.usefixtures("hub")
def test_offline_mode_is_told(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE forbids it"):
        pull(NAME, tmp_path / "fetched")


@pytest.mark.usefixtures("hub")
def test_the_commands_push_and_pull(run, measured_run, tmp_path):
    code, out, err = run("push", measured_run, NAME)
    assert (code, "next: finevote pull me/colours" in out) == (0, True), err
    code, out, _ = run("pull", NAME, tmp_path / "fetched")
    assert (code, "3 classes" in out, "every file as stated" in out) == (0, True, True)
    code, _, err = run("pull", NAME, tmp_path / "fetched")
    assert (code, err.count("\n")) == (2, 1)
    assert read_manifest(tmp_path / "fetched") == read_manifest(measured_run / "bundle")
