"""What to train: one typed config for every method, in groups."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tintype.types.base import Request, Seed


def _some(devices: Any) -> Any:
    if devices == "auto" or (isinstance(devices, int) and devices > 0):
        return devices
    raise ValueError("neither a number of devices, from 1 on, nor auto")


Devices = Annotated[int | Literal["auto"], BeforeValidator(_some)]
Precision = Literal["32", "bf16-mixed", "bf16-true", "16-mixed"]
INSTANCE_PROMPT = "a photo of [V] {class_noun}"
CLASS_PROMPT = "a photo of a {class_noun}"
NAME = r"[^\[\](){}<>|:,]"  # a letter that means nothing else in a prompt


class SubjectConfig(Request):
    """One subject: its pictures, the words for it, and how much it counts.

    In its prompts and captions `[V]` stands for this subject's identifier and `{class_noun}` for
    its class noun; `[NAME]`, with the `name` of any subject (else its folder's name), stands for
    that one's. Its pictures come `repeats` times a round, with `weight` in the loss.
    """

    pictures: Path
    class_noun: str = Field(min_length=1)
    name: str | None = Field(default=None, pattern=rf"^{NAME}+$")
    identifier: str = "sks"
    instance_prompt: str = INSTANCE_PROMPT
    class_prompt: str = CLASS_PROMPT
    class_dir: Path | None = None
    weight: float = Field(default=1.0, gt=0)
    repeats: int = Field(default=1, ge=1)

    @property
    def called(self) -> str:
        """What stands in brackets for its identifier: its name, or its folder's."""
        letters = re.findall(NAME, self.name or self.pictures.absolute().name)
        return "".join(letters).strip() or "subject"


class AdapterConfig(Request):
    """What an adapter adds to the layers that it targets (peft's kinds)."""

    kind: Literal["lora", "dora", "loha", "lokr", "oft"] = "lora"
    rank: int = Field(default=16, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Literal["attention", "attention+ff", "linear", "all"] | tuple[str, ...] = "attention"
    rank_stabilized: bool = False


class InversionConfig(Request):
    """New words: how many vectors stand for the identifier, and what they begin as.

    `initial` is words that the model knows (None: the class noun), `learning_rate` that of the new
    words alone (None: the config's); in the `first_steps` of pivotal tuning nothing but the words
    trains.
    """

    vectors: int = Field(default=1, ge=1, le=64)
    initial: str | None = None
    learning_rate: float | None = Field(default=None, gt=0)
    first_steps: int = Field(default=0, ge=0)


class DataConfig(Request):
    """How pictures and captions become batches.

    `captions`: text files beside the pictures, the pictures' names, the instance prompt, or the
    JSONL or CSV file at this path; "auto" takes what the folder holds. `other_prompts` are said of
    pictures without a caption as often as the instance prompt is, each of them. `keep_tokens`
    counts the comma-separated tags that stay in front when the others are shuffled. Bucket sizes
    are in px.
    """

    captions: Literal["auto", "prompt", "txt", "name"] | Path = "auto"
    other_prompts: tuple[str, ...] = ()
    caption_dropout: float = Field(default=0.0, ge=0, le=1)
    shuffle_captions: bool = False
    keep_tokens: int = Field(default=0, ge=0)
    flip_probability: float = Field(default=0.5, ge=0, le=1)
    center_crop: bool = True
    crops: int = Field(default=8, ge=1)
    buckets: bool = False
    bucket_step: int | None = Field(default=None, ge=8)
    bucket_min: int | None = Field(default=None, ge=8)
    bucket_max: int | None = Field(default=None, ge=8)
    bucket_upscale: bool = True
    masked_loss: bool = False
    unmasked_weight: float = Field(default=0.1, ge=0, le=1)
    validation: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _nothing_idle(self) -> Self:
        if self.shuffle_captions and self.captions == "prompt":
            raise ValueError("shuffle_captions has nothing to shuffle with captions: prompt")
        if self.keep_tokens and not self.shuffle_captions:
            raise ValueError("keep_tokens counts only with shuffle_captions: true")
        sizes = (self.bucket_step, self.bucket_min, self.bucket_max)
        if not self.buckets and (any(sizes) or not self.bucket_upscale):
            raise ValueError("bucket_step, _min, _max and _upscale count only with buckets: true")
        if self.bucket_min and self.bucket_max and self.bucket_min > self.bucket_max:
            raise ValueError("bucket_min is larger than bucket_max")
        return self


class PriorConfig(Request):
    """Prior preservation: how the base model's idea of the class is kept.

    Half of the `pictures` are of further `prompts`, if there are any: scenes, as "a {class_noun}
    on grass", that the subject is to be drawn in as well. Each step takes as many class pictures
    as instance pictures, but at most `batch_size`. For each class picture there are `unconditional`
    of the empty prompt: guidance is away from what the model draws for no prompt, so that should
    stay as it is too. With `distill` class pictures are judged by what the base makes of them with
    noise on, in place of that noise (arXiv:1606.09282); with source "model" that is always so.
    """

    weight: float = Field(default=1.0, ge=0)
    source: Literal["pictures", "model"] = "pictures"
    pictures: int | None = Field(default=None, ge=0)
    prompts: tuple[str, ...] = ()
    batch_size: int | None = Field(default=None, ge=1)
    unconditional: float = Field(default=0.0, ge=0)
    distill: bool = False
    steps: int = Field(default=20, ge=1)
    guidance_scale: float = Field(default=7.5, ge=0)


class LossConfig(Request):
    """The objective, over the base model's own prediction type.

    `timesteps` says how often each is trained: None is "uniform", and "log-normal" for EDM.
    `timestep_mean` and `timestep_std` are those of the (log or logit) normal distribution.
    """

    kind: Literal["l2", "huber", "smooth-l1"] = "l2"
    huber_delta: float = Field(default=0.1, gt=0)
    huber_schedule: Literal["constant", "exponential", "snr"] = "constant"
    min_snr_gamma: float | None = Field(default=None, gt=0)
    debiased: bool = False
    zero_terminal_snr: bool = False
    noise_offset: float = Field(default=0.0, ge=0, le=1)
    pyramid_noise: float = Field(default=0.0, ge=0, lt=1)
    input_perturbation: float = Field(default=0.0, ge=0, le=1)
    timesteps: Literal["uniform", "logit-normal", "cubic", "log-normal"] | None = None
    timestep_mean: float | None = None
    timestep_std: float | None = Field(default=None, gt=0)
    timestep_range: tuple[int, int] | None = None


class OptimizerConfig(Request):
    """The optimiser, the course of the learning rate, and what is averaged."""

    name: str = "adamw"
    text_encoder_learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    arguments: dict[str, Any] = Field(default_factory=dict)
    schedule: str = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    cycles: int = Field(default=1, ge=1)
    power: float = Field(default=2.0, gt=0)
    clip_norm: float = Field(default=1.0, ge=0)
    ema_decay: float | None = Field(default=None, gt=0, lt=1)


class MemoryConfig(Request):
    """What trades time or exactness for memory."""

    gradient_checkpointing: bool = False
    base_precision: Literal["32", "bf16", "16", "fp8", "int8", "nf4"] = "32"


class SpeedConfig(Request):
    """What makes steps faster, with the same losses to rounding; None: where it pays, on a GPU.

    `compile` compiles the UNet's repeated blocks; `cuda_graph` records its forward and backward
    pass and replays them; `channels_last` lays convolutions out so; `tf32` is for products in
    fp32; `attention` is the kernel that is tried first.
    """

    compile: bool | None = None
    cuda_graph: bool = False
    channels_last: bool | None = None
    tf32: bool = False
    attention: Literal["auto", "cudnn", "flash", "efficient"] = "auto"


class WatchConfig(Request):
    """How a run is watched: who is told its figures, and what is measured of its samples.

    `loggers` beside metrics.csv; `name` is the run's name there (None: that of its folder).
    `offline` keeps what they are told in the run folder. `tracking_uri` is MLflow's (None: files
    in the run folder). `measure` compares samples with the instance pictures, in the embedded
    pocket-clip.
    """

    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    offline: bool = False
    project: str = Field(default="tintype", min_length=1)
    name: str | None = Field(default=None, min_length=1)
    tags: tuple[str, ...] = ()
    tracking_uri: str | None = Field(default=None, min_length=1)
    measure: bool = True


class TrainConfig(Request):
    """A run; a field that isn't given takes the default of its base model and method.

    One subject is told by `pictures`, `class_noun` and so on; several by `subjects`. `[V]` in a
    prompt stands for the identifier, `{class_noun}` for the class noun.
    """

    pictures: Path | None = None
    class_noun: str | None = Field(default=None, min_length=1)
    subjects: tuple[SubjectConfig, ...] = ()
    model: str = "pocket"
    method: str = "dreambooth"
    out: Path | None = None
    identifier: str = "sks"
    instance_prompt: str = INSTANCE_PROMPT
    class_prompt: str = CLASS_PROMPT
    class_dir: Path | None = None

    steps: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    seed: Seed = 0
    resolution: int | None = Field(default=None, ge=16)
    train_text_encoder: bool = False
    freeze: tuple[str, ...] = ()

    adapter: AdapterConfig = AdapterConfig()
    inversion: InversionConfig = InversionConfig()
    data: DataConfig = DataConfig()
    prior: PriorConfig = PriorConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    memory: MemoryConfig = MemoryConfig()
    speed: SpeedConfig = SpeedConfig()
    watch: WatchConfig = WatchConfig()

    precision: Precision = "32"
    accumulate: int = Field(default=1, ge=1)
    accelerator: str = "auto"
    devices: Devices = 1
    nodes: int = Field(default=1, ge=1)
    strategy: str = "auto"

    checkpoint_every: int | None = Field(default=None, ge=1)
    checkpoint_minutes: float | None = Field(default=None, gt=0)
    keep_checkpoints: int = Field(default=2, ge=1)
    keep_best: Literal["loss", "validation_loss", "likeness"] | None = None
    sample_every: int | None = Field(default=None, ge=0)
    sample_prompts: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _subjects_told_once(self) -> Self:
        own = ("pictures", "class_noun", "class_dir", "identifier", "instance_prompt")
        given = [name for name in (*own, "class_prompt") if getattr(self, name) != _default(name)]
        if self.subjects and given:
            raise ValueError(
                f"given together with {' and '.join(sorted(given))}: say that in each subject"
            )
        return self

    @property
    def all_subjects(self) -> tuple[SubjectConfig, ...]:
        """The subjects, however they were told; raises ConfigError for one without pictures."""
        if self.subjects:
            return self.subjects
        names = SubjectConfig.model_fields.keys() & self.model_fields_set
        given = {name: getattr(self, name) for name in names}
        return (
            SubjectConfig(**{name: value for name, value in given.items() if value is not None}),
        )


def _default(field: str) -> Any:
    """What a field of a TrainConfig is if it isn't given."""
    return TrainConfig.model_fields[field].default
