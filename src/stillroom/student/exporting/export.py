"""A student as files for others' programs: `export_model(artefact, folder, "gguf")`.

    safetensors  all weights, the adapter merged in    opened by transformers
    adapter      the adapter alone                     opened by peft, on the base it was trained on
    gguf         one file                              opened by llama.cpp

Each folder also has tokenizer and chat template, and a README.md with the lines that load it. Before it is
handed over, it is opened as a stranger would and held to what the trainer's model said (`identity`); a folder
that differs is not left behind. llama.cpp is not at hand: a GGUF file is read back by transformers, and
its tokenizer is built anew from the file, with llama.cpp's rules.

`python -m stillroom.student.exporting.export FOLDER` does what FOLDER/spec.json asks, as a child of a server:

    {"model": folder of an artefact, "format", "precision", "threads"}   ->   FOLDER/export

and writes events to standard output, as `run` does: progress (stage, done, total), done (agreement), error.
"""

from __future__ import annotations

import gc
import json
import re
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import AutoPeftModelForCausalLM
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from stillroom.errors import Conflict, TrainingFailed
from stillroom.student.bases.adapters import without_peft_warnings
from stillroom.student.bases.base_models import Student, open_artefact
from stillroom.student.bases.checkpoint import read_artefact, sha256_of, write_folder
from stillroom.student.bases.identity import Agreement, Identity, identity_of, read_identity, verify
from stillroom.student.bases.precision import four_bits, is_quantized, keep_one_layout
from stillroom.student.chats.template import ChatTemplate
from stillroom.student.child import as_child
from stillroom.student.exporting.formats import Format, check_training, format_of, precision_of
from stillroom.student.exporting.gguf import write_gguf
from stillroom.student.exporting.gguf_tokenizer import tokenizer_in

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
EXACT = "f32"
NOT_A_NAME = re.compile(r"[^A-Za-z0-9._]+")

Tell = Callable[[str, int, int], None]
"""What is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A folder that behaves as the student did when it was trained."""

    folder: Path
    format: Format
    precision: str
    agreement: Agreement


def export_model(
    artefact: Path, to: Path, format: Format | str, *, precision: str | None = None, tell: Tell | None = None
) -> Exported:
    """Writes the folder `to`, whole or not at all, from a model folder that a training run left.

    Raises StudentDiffers when what was written does not behave as trained, and InvalidRequest for what the
    format cannot hold.
    """
    kind = format_of(format)
    made = _Export(artefact, kind, precision_of(kind, precision), tell or (lambda *_: None))
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise Conflict(f"{to} is there already. Name a new folder.", param="to")
    write_folder(to, made.write)
    assert made.agreement is not None
    return Exported(folder=to, format=kind, precision=made.precision, agreement=made.agreement)


class _Export:
    """One export on its way."""

    def __init__(self, source: Path, kind: Format, precision: str, tell: Tell) -> None:
        self.precision = precision
        self.agreement: Agreement | None = None
        self._source = source
        self._kind = kind
        self._tell = tell
        self._artefact = read_artefact(source)
        check_training(kind, self._artefact.training, self._artefact.model_name)

    def write(self, draft: Path) -> None:
        writers = {Format.SAFETENSORS: self._safetensors, Format.ADAPTER: self._adapter, Format.GGUF: self._gguf}
        writers[self._kind](draft)
        (draft / "README.md").write_text(self._readme(draft), encoding="utf-8")

    def _safetensors(self, draft: Path) -> None:
        student, identity = self._opened()
        model = _model_of(student).to(DTYPES[self.precision])
        end_ids = list(student.template.end_ids)
        _set_ends(model, end_ids)
        self._tell("writing", 0, 1)
        model.save_pretrained(str(draft))
        student.template.tokenizer.save_pretrained(str(draft))
        del student, model
        self._check(identity, *_plainly_opened(draft))

    def _adapter(self, draft: Path) -> None:
        identity = read_identity(self._source) or self._opened()[1]
        self._tell("writing", 0, 1)
        for path in self._source.iterdir():
            if path.name.startswith(("adapter_", "tokenizer", "chat_template", "special_tokens", "vocab", "merges")):
                shutil.copy(path, draft / path.name)
        config = json.loads((draft / "adapter_config.json").read_text(encoding="utf-8"))
        # peft wrote where the base lay then; what was asked for finds it on other machines too.
        config |= {"base_model_name_or_path": self._artefact.base.path, "revision": self._artefact.base.revision}
        (draft / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        self._tell("opening", 0, 1)
        rounded = {"quantization_config": four_bits(torch.float32)} if self._is_on_four_bits else {}
        with without_peft_warnings():
            model = AutoPeftModelForCausalLM.from_pretrained(str(draft), dtype=torch.float32, **rounded)
        keep_one_layout(model)
        self._check(identity, model, AutoTokenizer.from_pretrained(str(draft)))

    def _gguf(self, draft: Path) -> None:
        student, identity = self._opened()
        model, tokenizer = _model_of(student), student.template.tokenizer
        path = draft / f"{self._slug()}-{self.precision}.gguf"
        write_gguf(
            path,
            model,
            tokenizer,
            end_ids=student.template.end_ids,
            name=self._artefact.model_name,
            precision=self.precision,
            tell=lambda done, total: self._tell("writing", done, total),
        )
        config = _config_for_gguf(model.config)
        _set_ends(model, list(student.template.end_ids))
        generation = model.generation_config
        del student, model
        gc.collect()
        self._tell("opening", 0, 1)
        # Its own transformers class reads the shape from the file too, but not all that shapes have.
        read = AutoModelForCausalLM.from_pretrained(str(draft), gguf_file=path.name, config=config, dtype=torch.float32)
        read.generation_config = generation
        self._check(identity, read, tokenizer_in(path, tokenizer))

    def _opened(self) -> tuple[Student, Identity]:
        """The student, its adapter merged; and who it is. Older folders do not tell: then it is who it is now."""
        self._tell("opening", 0, 1)
        student = open_artefact(self._source)
        student.model.to("cpu")
        identity = read_identity(self._source)
        if identity is None:
            identity = identity_of(student.model, student.template, context_tokens=student.context_tokens)
        return student, identity

    def _check(self, identity: Identity, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tell("checking", 0, 1)
        template = ChatTemplate(tokenizer, end_ids=_ends(model), name=self._artefact.model_name)
        self.agreement = verify(
            identity,
            model,
            template,
            form=f"The {self._kind} export of {self._artefact.model_name}",
            arithmetic=None if self.precision == EXACT else self.precision,
        )
        self._tell("checking", 1, 1)

    @property
    def _is_on_four_bits(self) -> bool:
        return is_quantized(self._artefact.base.quantization)

    def _slug(self) -> str:
        return NOT_A_NAME.sub("-", self._artefact.model_name).strip("-.") or "model"

    def _readme(self, draft: Path) -> str:
        assert self.agreement is not None
        base = self._artefact.base
        where = base.path or "nothing: its weights started at random"
        loading = (
            _LOADING_ON_FOUR_BITS if self._kind is Format.ADAPTER and self._is_on_four_bits else _LOADING[self._kind]
        )
        return README.format(
            name=self._artefact.model_name,
            loading=loading.format(file=next((each.name for each in draft.glob("*.gguf")), "")),
            base=base.name,
            where=where + (f", revision {base.revision}" if base.revision else ""),
            precision=self.precision,
            licence=_LICENCE if base.path else _OWN_WEIGHTS,
            asked=_WITHOUT_ITS_PROMPT if self._artefact.dropped_prompt else "",
            agreement=_told(self.agreement),
        )


def _model_of(student: Student) -> PreTrainedModel:
    assert isinstance(student.model, PreTrainedModel)
    return student.model


def _set_ends(model: PreTrainedModel, end_ids: list[int]) -> None:
    """Generation by transformers stops where ours does."""
    ends = end_ids[0] if len(end_ids) == 1 else end_ids
    model.config.eos_token_id = ends
    if model.generation_config is not None:
        model.generation_config.eos_token_id = ends


def _ends(model: PreTrainedModel) -> list[int]:
    ends = model.generation_config.eos_token_id if model.generation_config else None
    return list(ends) if isinstance(ends, list) else [] if ends is None else [ends]


def _plainly_opened(draft: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    gc.collect()
    model = AutoModelForCausalLM.from_pretrained(str(draft), dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(str(draft))


def _config_for_gguf(config: PreTrainedConfig) -> PreTrainedConfig:
    """The model's shape for transformers' reader, which knows Mistral by the name that llama.cpp has for it."""
    if config.model_type != "mistral":
        return config
    shape = {name: value for name, value in config.to_dict().items() if name not in ("model_type", "architectures")}
    read: PreTrainedConfig = AutoConfig.for_model("llama", **shape)
    return read


def _told(agreement: Agreement) -> str:
    return (
        f"{agreement.conversations} conversations were put to the model in the trainer and to this export: every prompt "
        f"has the same token ids, {agreement.agreement:.1%} of {agreement.tokens} greedy tokens are the same, and the "
        f"mean KL divergence of its predictions is {agreement.divergence:.2g} nats."
    )


README = """# {name}

{loading}

- Fine-tuned from: {base} ({where})
- Weights: {precision}
- {licence}
{asked}
{agreement}
"""
_WITHOUT_ITS_PROMPT = """- Trained without the system prompt that its rows began with, and to be asked without one
"""
_LICENCE = "Licence: the base model's applies to these weights as well; see where it comes from."
_OWN_WEIGHTS = "Licence: whoever trained it decides."
_LOADING = {
    Format.SAFETENSORS: """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
```

In this folder, that is; elsewhere, name it. `tokenizer.apply_chat_template(messages, add_generation_prompt=True)` writes
a chat as the model was trained to read it.""",
    Format.ADAPTER: """```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
```

In this folder, that is; elsewhere, name it. peft opens the base model where `adapter_config.json` says that it is; edit
that where it lies elsewhere. `tokenizer.apply_chat_template(messages, add_generation_prompt=True)` writes a chat as the
model was trained to read it.""",
    Format.GGUF: """```sh
llama-server --jinja -m {file}
llama-cli --jinja -m {file}
```

The chat template is in the file; `--jinja` makes llama.cpp use it. Two things llama.cpp does not do, which the trainer
did: normalise Unicode (NFC) where the tokenizer does, and keep control tokens that a message spells as mere text.""",
}

_LOADING_ON_FOUR_BITS = (
    _LOADING[Format.ADAPTER]
    .replace(
        "import AutoTokenizer\n",
        'import AutoTokenizer, BitsAndBytesConfig\n\nnf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", '
        "bnb_4bit_use_double_quant=True)",
    )
    .replace('CausalLM.from_pretrained(".")', 'CausalLM.from_pretrained(".", quantization_config=nf4)')
    + "\n\nIt was trained on a base in 4 bits, and behaves as trained on one alone."
)


def run(folder: Path, emit: Callable[[dict[str, Any]], None], stopping: threading.Event) -> None:
    """One export that a server asked for."""
    spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    torch.set_num_threads(spec["threads"])

    def tell(stage: str, done: int, total: int) -> None:
        if stopping.is_set():
            raise TrainingFailed("The export was stopped.")
        emit({"type": "progress", "stage": stage, "done": done, "total": total})

    made = export_model(Path(spec["model"]), folder / "export", spec["format"], precision=spec["precision"], tell=tell)
    files = [
        {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(made.folder.iterdir())
    ]
    emit({"type": "done", "agreement": asdict(made.agreement), "files": files})


if __name__ == "__main__":
    sys.exit(as_child("stillroom.student.exporting.export", sys.argv[1:], run))
