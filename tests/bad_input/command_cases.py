"""Command lines that no command understands, and options that do not go together."""

from tests.bad_input.case import case, write, write_records

TRAIN = "train config.json --run=out"
TASK = """
name = "a"
description = "a"
kind = "multiple_choice"
template = "{{text}} {{label}}"
{} = "a"
[examples]
file = "{}"
"""
GENERATE = "generate pretrained 'def add'"

FRONT_DOOR = [
    case("front door: unknown command", "dance", "command", "'dance'"),
    case("front door: a command misspelt", "pretain", "'pretrain'"),
    case("front door: an option for a command", "--verbose", "command", "--verbose"),
]

DOCTOR = [
    case("doctor: unknown option", "doctor --fix", "--fix"),
    case("doctor: an argument", "doctor now", "now"),
    case("doctor: a field of a config", "doctor --training.seed=1", "--training.seed"),
]

TRAINING = [
    case("train: no target", "train", "TARGET"),
    case("train: unknown preset", "train decoder_only/tiney", "'decoder_only/tiny'"),
    case("train: preset of a wrong name", "train llama9", "config", "llama9"),
    case("train: a folder that is no run", "train text", "target", "text"),
    case("train: unknown option", f"{TRAIN} --runn=out", "--runn"),
    case("train: unknown field", f"{TRAIN} --training.num-step=5", "--training.num-steps"),
    case("train: field of the wrong type", f"{TRAIN} --training.num-steps=many", "num-steps"),
    case("train: field without a value", f"{TRAIN} --training.num-steps", "--training.num-steps"),
    case(
        "train: switch with a value", f"{TRAIN} --model.tie-embeddings=no", "--model.tie-embeddings"
    ),
    case("train: stray argument", f"{TRAIN} fast", "fast"),
    case("train: unknown choice", f"{TRAIN} --verify=some", "verify", "some"),
    case(
        "train: field of another variant",
        f"{TRAIN} --optimizer.schedule.decay-steps=1",
        "optimizer.schedule",
    ),
    case("train: steps to trace beyond the end", f"{TRAIN} --profile=90:99", "profile"),
    case("train: steps to trace in words", f"{TRAIN} --profile=all", "profile"),
    case("train: flags of another form", f"{TRAIN} --xla-flags=fast", "xla_flags"),
    case(
        "train: cache that is a file",
        f"{TRAIN} --compilation-cache=runs.csv",
        "compilation_cache",
        "runs.csv",
    ),
    case("train: too many corpora", f"{TRAIN} --corpus corpus other_corpus", "corpus"),
    case("train: corpus that is a file", f"{TRAIN} --corpus=runs.csv", "runs.csv"),
    case("train: run below a file", "train config.json --run=runs.csv/out", "run", "runs.csv"),
    case(
        "train: run where nothing can be written",
        "train config.json --run=/proc/isoflop",
        "/proc/isoflop",
    ),
    case("train: run that is a file", "train config.json --run=runs.csv", "run", "runs.csv"),
    case("train: run that is there", "train config.json --run=pretrained", "run", "pretrained"),
    case(
        "train: fields for a run", "train pretrained --training.num-steps=9", "training.num_steps"
    ),
]

PRETRAINING = [
    case("pretrain: unknown option", "pretrain --tme 5m", "--time"),
    case("pretrain: time without unit", "pretrain --time 5", "time"),
    case("pretrain: two budgets", "pretrain --time 5m --params 1M", "budget", "--params"),
    case("pretrain: unknown preset", "pretrain --time 9s --run=out --preset=none", "none"),
    case(
        "pretrain: unknown family", "pretrain --time 9s --run=out --family=lama", "family", "lama"
    ),
    case(
        "pretrain: source that is not there",
        "pretrain --time 9s --run=out --source=none.txt",
        "source",
        "none.txt",
    ),
    case("pretrain: run that is a file", "pretrain --time 9s --run=runs.csv", "run", "runs.csv"),
    case("pretrain: run below a file", "pretrain --time 9s --run=runs.csv/out", "run", "runs.csv"),
    case(
        "pretrain: a mixture",
        "pretrain --time 9s --run=out --data.mixture.kind=proportional --data.mixture.corpora a b",
        "data.mixture.kind",
    ),
    case("pretrain: a run of another kind", "pretrain --time 9s --run=pretrained", "plan.json"),
]

LAUNCHING = [
    case("launch: no processes", "launch -- isoflop train config.json", "--processes"),
    case("launch: fewer than one", "launch --processes 0 -- isoflop doctor", "processes"),
    case("launch: no command", "launch --processes 2", "command"),
    case("launch: nothing after --", "launch --processes 2 --", "command"),
    case("launch: restarts below zero", "launch --processes 2 --restarts=-1 -- true", "restarts"),
    case("launch: unknown option", "launch --proceses 2 -- true", "--processes"),
    case("launch: program that is not there", "launch --processes 2 -- none", "none"),
    case("checkpoint: no action", "checkpoint", "ACTION"),
    case("checkpoint: unknown action", "checkpoint remove pretrained", "remove"),
    case("checkpoint: run that is not there", "checkpoint list none", "run", "none"),
    case("checkpoint: run that is a file", "checkpoint verify runs.csv", "run", "runs.csv"),
    case("checkpoint: nothing to prune by", "checkpoint prune pretrained", "keep"),
    case("checkpoint: keep below zero", "checkpoint prune pretrained --keep=-1", "keep"),
    case("checkpoint: step that is not there", "checkpoint verify pretrained --step=7", "step"),
    case("checkpoint: keep rules to list by", "checkpoint list pretrained --keep=1", "keep"),
]

GENERATION = [
    case("generate: no run", "generate", "RUN"),
    case("generate: no prompt", "generate pretrained", "prompt"),
    case("generate: run that is not there", "generate none hello", "run", "none"),
    case("generate: run that is a file", "generate runs.csv hello", "run", "runs.csv"),
    case("generate: empty prompt", "generate pretrained ''", "prompt"),
    case("generate: no tokens", f"{GENERATE} --max-tokens=0", "max_tokens"),
    case("generate: temperature below zero", f"{GENERATE} --temperature=-1", "temperature"),
    case("generate: temperature NaN", f"{GENERATE} --temperature=nan", "temperature"),
    case("generate: top-p of nothing", f"{GENERATE} --top-p=0", "top_p"),
    case("generate: top-k below zero", f"{GENERATE} --top-k=-1", "top_k"),
    case("generate: beams that draw", f"{GENERATE} --beams=4 --temperature=1", "temperature"),
    case(
        "generate: more samples than beams", f"{GENERATE} --beams=2 --num-samples=3", "num_samples"
    ),
    case("generate: no samples", f"{GENERATE} --num-samples=0", "num_samples"),
    case("generate: empty stop", f"{GENERATE} --stop ''", "stop"),
    case("generate: seed below zero", f"{GENERATE} --seed=-1", "seed"),
    case("generate: devices that are not here", f"{GENERATE} --tensor=3", "tensor"),
    case(
        "generate: more candidates than tokens",
        f"{GENERATE} --show-probabilities=999",
        "show_probabilities",
    ),
    case(
        "generate: picture below a file",
        f"{GENERATE} --picture=runs.csv/a.png",
        "picture",
        "runs.csv",
    ),
    case("generate: fields of a config", f"{GENERATE} --model.emb-dim=8", "--model.emb-dim"),
    case("generate: text cut inside a character", "generate pretrained 'a\udcff'", "text"),
]

SCORING = [
    case("score: no text", "score pretrained", "texts"),
    case("score: empty text", "score pretrained ''", "texts"),
    case("score: file that is not there", "score pretrained --files none.txt", "files", "none.txt"),
    case("score: file that is a folder", "score pretrained --files text", "files", "text"),
    case(
        "score: file that is not UTF-8",
        "score pretrained --files bad.txt",
        "files",
        "bad.txt",
        damage=write("bad.txt", b"\xff\xfe\x00"),
    ),
    case("score: window below zero", "score pretrained hello --window=-1", "window"),
    case(
        "score: stride beyond the window", "score pretrained hello --window=8 --stride=9", "stride"
    ),
    case("score: context and window", "score pretrained hello --context=a --window=8", "context"),
    case("score: encoder and context", "score encoder hello --context=a", "model.architecture"),
]

EVALUATION = [
    case("evaluate: no run", "evaluate", "run"),
    case("evaluate: run that is not there", "evaluate none --tasks copy", "none"),
    case("evaluate: unknown task", "evaluate pretrained --tasks dancing", "tasks", "dancing"),
    case(
        "evaluate: task file that is not there",
        "evaluate pretrained --tasks none.toml",
        "none.toml",
    ),
    case(
        "evaluate: task file that is no TOML",
        "evaluate pretrained --tasks bad.toml",
        "bad.toml",
        "TOML",
        damage=write("bad.toml", "name = "),
    ),
    case(
        "evaluate: task file with an unknown field",
        "evaluate pretrained --tasks bad.toml",
        "bad.toml",
        "nme",
        damage=write("bad.toml", TASK.format("nme", "records.jsonl")),
    ),
    case(
        "evaluate: task file with another's records",
        "evaluate pretrained --tasks bad.toml",
        "bad.toml",
        "file",
        damage=write("bad.toml", TASK.format("header", "../records.jsonl")),
    ),
    case(
        "evaluate: examples without an answer",
        "evaluate pretrained --tasks bad.jsonl",
        "bad.jsonl",
        "target",
        damage=write_records("bad.jsonl", {"input": "a"}),
    ),
    case("evaluate: shots below zero", "evaluate pretrained --shots -1", "shots"),
    case("evaluate: shots in words", "evaluate pretrained --shots few", "shots"),
    case("evaluate: no examples", "evaluate pretrained --limit=0", "limit"),
    case("evaluate: encoder", "evaluate encoder --tasks records.jsonl", "encoder_only"),
    case(
        "evaluate: out below a file",
        "evaluate pretrained --tasks records.jsonl --shots 0 --out=runs.csv/a",
        "out",
        "runs.csv",
    ),
    case("harness: run that is not there", "harness none --tasks arc_easy", "run", "none"),
    case("harness: options before the run", "harness --tasks arc_easy", "run", "--tasks"),
    case("harness: a folder that is no run", "harness text --tasks arc_easy", "run", "text"),
]

LOOKING_INSIDE = [
    case("attention: run that is not there", "attention none hello", "none"),
    case("attention: no text", "attention pretrained", "TEXT"),
    case("attention: empty text", "attention pretrained ''", "text"),
    case("attention: layer that is not there", "attention pretrained hello --layers 2", "layers"),
    case("attention: head that is not there", "attention pretrained hello --heads -1", "heads"),
    case("attention: target for a decoder", "attention pretrained hello --target=a", "target"),
    case(
        "attention: out that is a file",
        "attention pretrained hello --out=runs.csv",
        "out",
        "runs.csv",
    ),
    case("embeddings: run that is not there", "embeddings none", "none"),
    case("embeddings: unknown pooling", "embeddings pretrained --pooling=max", "pooling", "max"),
    case("embeddings: no neighbours", "embeddings pretrained a --neighbours=0", "neighbours"),
    case("embeddings: two tokens", "embeddings pretrained --tokens=2", "tokens"),
    case(
        "embeddings: texts that are not there",
        "embeddings pretrained --texts=none.txt",
        "texts",
        "none.txt",
    ),
    case(
        "embeddings: file without text",
        "embeddings pretrained --texts=blank.txt",
        "texts",
        "blank.txt",
        damage=write("blank.txt", "\n \n"),
    ),
    case(
        "embeddings: another tokenizer's corpus",
        "embeddings pretrained --corpus=other_corpus",
        "corpus",
        "other_corpus",
    ),
    case(
        "embeddings: first place of a decoder",
        "embeddings pretrained 'a b c' --pooling=first",
        "pooling",
    ),
    case(
        "embeddings: out that is a file", "embeddings pretrained --out=runs.csv", "out", "runs.csv"
    ),
    case("sampling: neither corpus nor prompts", "sampling pretrained", "corpus, prompts"),
    case(
        "sampling: both",
        "sampling pretrained --corpus=corpus --prompts=runs.csv",
        "corpus, prompts",
    ),
    case(
        "sampling: no prompts asked for",
        "sampling pretrained --corpus=corpus --num-prompts=0",
        "num_prompts",
    ),
    case(
        "sampling: another tokenizer's corpus",
        "sampling pretrained --corpus=other_corpus",
        "corpus",
        "other_corpus",
    ),
    case("sampling: encoder", "sampling encoder --corpus=corpus", "model.architecture"),
    case(
        "sampling: out that is a file",
        "sampling pretrained --corpus=corpus --out=runs.csv",
        "out",
        "runs.csv",
    ),
    case(
        "sampling: documents too short",
        "sampling pretrained --corpus=corpus --prompt-tokens=900000",
        "corpus",
    ),
    case("inspect: nothing there", "inspect none", "target", "none"),
    case("inspect: neither run nor corpus", "inspect text", "target", "text"),
    case("inspect: step zero", "inspect pretrained --step=0", "step"),
    case("inspect: step beyond the end", "inspect pretrained --step=21", "step"),
    case("inspect: rows below zero", "inspect pretrained --rows=-1", "rows"),
    case("inspect: documents of a run", "inspect pretrained --documents=2", "documents"),
    case("inspect: step of a corpus", "inspect corpus --step=2", "step"),
    case("inspect: width of nothing", "inspect pretrained --width=1", "width"),
    case("inspect: another corpus", "inspect pretrained --corpus=other_corpus", "data.corpus"),
    case("report: run that is not there", "report none", "run", "none"),
    case("report: a folder that is no run", "report text", "run.json"),
    case("report: run that is a file", "report runs.csv", "run", "runs.csv"),
    case("report: no run named", "report", "RUN"),
]

ADAPTATION = [
    case("adapt: no out", "adapt pretrained --task=docstring_prompts", "--out"),
    case(
        "adapt: run that is not there",
        "adapt none --out=out --task=docstring_prompts",
        "run",
        "none",
    ),
    case("adapt: nothing to adapt to", "adapt pretrained --out=out", "--task"),
    case(
        "adapt: task and corpus",
        "adapt pretrained --out=out --task=docstrings --corpus=corpus",
        "task and corpus",
    ),
    case("adapt: unknown task", "adapt pretrained --out=out --task=dancing", "task", "dancing"),
    case(
        "adapt: task of another architecture",
        "adapt pretrained --out=out --task=docstrings",
        "kind",
    ),
    case(
        "adapt: records without a kind", "adapt pretrained --out=out --data=records.jsonl", "kind"
    ),
    case(
        "adapt: replay without a corpus",
        "adapt pretrained --out=out --task=docstring_prompts --replay=0.1",
        "replay",
    ),
    case(
        "adapt: replay of everything",
        "adapt pretrained --out=out --corpus=corpus --replay=1",
        "replay",
    ),
    case(
        "adapt: another tokenizer's corpus",
        "adapt pretrained --out=out --corpus=other_corpus",
        "tokenizer",
    ),
    case("adapt: corpus that is not there", "adapt pretrained --out=out --corpus=none", "none"),
    case("adapt: no epochs", "adapt pretrained --out=out --corpus=corpus --epochs=0", "epochs"),
    case(
        "adapt: out that is the run",
        "adapt pretrained --out=pretrained --corpus=corpus",
        "out",
        "pretrained",
    ),
    case(
        "adapt: out that is a file", "adapt pretrained --out=runs.csv --corpus=corpus", "runs.csv"
    ),
]

TOKENIZERS = [
    case("tokenizer: no action", "tokenizer", "compare"),
    case("tokenizer: unknown action", "tokenizer compere", "'compare'"),
    case("tokenizer: no text", "tokenizer compare --tokenizers corpus other_corpus", "--text"),
    case(
        "tokenizer: text that is not there",
        "tokenizer compare --text=none.txt --tokenizers corpus other_corpus",
        "source",
        "none.txt",
    ),
    case("tokenizer: only one", "tokenizer compare --text=text --tokenizers corpus", "tokenizers"),
    case(
        "tokenizer: one that is not there",
        "tokenizer compare --text=text --tokenizers corpus none",
        "none",
    ),
    case(
        "tokenizer: vocabulary of nothing",
        "tokenizer compare --text=text --tokenizers corpus --train-vocab 0",
        "vocab",
    ),
    case(
        "tokenizer: bytes in words",
        "tokenizer compare --text=text --tokenizers corpus other_corpus --max-bytes=all",
        "max_bytes",
    ),
]

CASES = [
    *FRONT_DOOR,
    *DOCTOR,
    *TRAINING,
    *PRETRAINING,
    *LAUNCHING,
    *GENERATION,
    *SCORING,
    *EVALUATION,
    *LOOKING_INSIDE,
    *ADAPTATION,
    *TOKENIZERS,
]
