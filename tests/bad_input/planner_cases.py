"""Budgets, hardware, laws and runs to be fitted that make no plan."""

from tests.bad_input.case import case, cut, replace_text, write

PLAN = "plan --params 7B --chips v5p:64"
FIT = "fit runs.csv --out=out"
SWEEP = "sweep --corpus corpus --out=out --dry-run"
LAW = "plan --budget-flops=1e21 --chips v5p:64 --law fitted:law.json"

PLANS = [
    case("plan: no budget", "plan", "budget"),
    case("plan: two budgets", "plan --params 7B --tokens 1T", "budget"),
    case("plan: time without unit", "plan --time 5", "time"),
    case("plan: negative", "plan --budget-flops -1", "budget-flops"),
    case("plan: NaN", "plan --budget-flops nan", "budget-flops"),
    case("plan: infinite", "plan --budget-flops inf", "budget-flops"),
    case("plan: beyond numbers", "plan --budget-flops 1e999", "flops"),
    case("plan: far too small", "plan --budget-flops 1 --chips v5p:64", "budget"),
    case("plan: in words", "plan --params many", "params"),
    case("plan: cost without a price", "plan --cost 100 --chips v5p:64", "price"),
    case("plan: price below zero", "plan --cost 100 --price=-1 --chips v5p:64", "price"),
    case("plan: unknown chips", "plan --params 7B --chips v9:64", "chips", "v9"),
    case("plan: no chips", "plan --params 7B --chips v5p:0", "chips"),
    case("plan: slices without chips", "plan --params 7B --slices 2", "slices"),
    case("plan: more than the peak", f"{PLAN} --mfu=2", "mfu"),
    case("plan: mfu without chips", "plan --params 7B --mfu=0.5", "mfu"),
    case("plan: vocabulary of nothing", f"{PLAN} --vocab-size=0", "vocab_size"),
    case("plan: rows of nothing", f"{PLAN} --seq-len=0", "seq_len"),
    case("plan: memory in words", f"{PLAN} --memory=lots", "memory"),
    case("plan: epochs below zero", f"{PLAN} --max-epochs=-1", "max_epochs"),
    case("plan: topology without --verify", f"{PLAN} --topology=cpu:8", "topology"),
    case("plan: unknown preset", f"{PLAN} --preset=none.json", "none.json"),
    case("plan: unknown law", f"{PLAN} --law=moore", "law", "moore"),
    case("plan: law that is not there", f"{PLAN} --law=fitted:none.json", "none.json"),
    case("plan: law that is no JSON", LAW, "law.json", damage=write("law.json", "{")),
    case("plan: law without coefficients", LAW, "law.json", damage=write("law.json", "{}")),
    case("plan: out below a file", f"{PLAN} --out=runs.csv/plan.json", "out", "runs.csv"),
    case("plan: out that is a folder", f"{PLAN} --out=text", "out", "text"),
]

COMPILATION = [
    case("compile: no topology", "compile decoder_only/tiny", "--topology"),
    case("compile: unknown chip", "compile decoder_only/tiny --topology=v9:8", "topology", "v9"),
    case("compile: grid of no kind", "compile decoder_only/tiny --topology=v5p:3x5", "topology"),
    case(
        "compile: slices of GPUs",
        "compile decoder_only/tiny --topology=h100:8 --slices=2",
        "slices",
    ),
    case("compile: unknown preset", "compile none --topology=cpu:8", "config", "none"),
    case(
        "compile: mesh of other devices",
        "compile decoder_only/tiny --topology=cpu:8 --mesh.data=3",
        "mesh",
    ),
    case(
        "compile: HLO below a file",
        "compile decoder_only/tiny --topology=cpu:8 --save-hlo=runs.csv/a",
        "save-hlo",
    ),
    case(
        "compile: HLO that is a folder",
        "compile decoder_only/tiny --topology=cpu:8 --save-hlo=text",
        "save-hlo",
    ),
]

SWEEPS = [
    case("sweep: no corpus", "sweep --budgets 1e12", "--corpus"),
    case("sweep: corpus that is not there", "sweep --corpus none --budgets 1e12", "none"),
    case("sweep: no budgets", SWEEP, "--budgets"),
    case("sweep: budgets in words", f"{SWEEP} --budgets many", "budgets"),
    case("sweep: empty budget", f"{SWEEP} --budgets 1e12,,1e13", "budgets"),
    case("sweep: sizes below zero", f"{SWEEP} --budgets 1e12 --sizes=-5", "sizes"),
    case("sweep: no sizes", f"{SWEEP} --budgets 1e12 --per-budget=0", "per_budget"),
    case("sweep: sizes all the same", f"{SWEEP} --budgets 1e12 --spread=1", "spread"),
    case("sweep: unknown field", f"{SWEEP} --budgets 1e12 --training.sed=1", "--training.seed"),
    case("sweep: far too small", f"{SWEEP} --budgets 1", "budget"),
    case(
        "sweep: out below a file",
        "sweep --corpus corpus --budgets 1e12 --per-budget=1 --out=runs.csv/a",
        "runs.csv",
    ),
]

FITS = [
    case("fit: runs that are not there", "fit none.csv", "none.csv"),
    case("fit: runs that are a folder", "fit text", "text"),
    case("fit: empty", FIT, "runs.csv", damage=write("runs.csv", "")),
    case("fit: header only", FIT, "runs.csv", damage=cut("runs.csv", 19)),
    case("fit: no losses", FIT, "loss", damage=replace_text("runs.csv", "loss", "score")),
    case("fit: not UTF-8", FIT, "runs.csv", damage=write("runs.csv", b"loss\xff")),
    case(
        "fit: a loss in words",
        FIT,
        "line 14",
        "loss",
        damage=write("runs.csv", "params,tokens,loss\n" + "1e7,1e9,3\n" * 12 + "1e7,1e9,low\n"),
    ),
    case(
        "fit: a loss of NaN",
        FIT,
        "line 2",
        "loss",
        damage=write("runs.csv", "params,tokens,loss\n1e7,1e9,nan\n"),
    ),
    case(
        "fit: a row of another length",
        FIT,
        "line 2",
        damage=write("runs.csv", "params,tokens,loss\n1e7,1e9\n"),
    ),
    case("fit: too few runs", FIT, "runs", damage=cut("runs.csv", 100)),
    case("fit: too few bootstraps", f"{FIT} --bootstraps=3", "bootstraps"),
    case("fit: delta of nothing", f"{FIT} --delta=0", "delta"),
    case("fit: irreducible loss above the runs'", f"{FIT} --fixed-E=50", "fixed_E"),
    case("fit: all left out", f"{FIT} --leave-out=12", "leave_out"),
    case("fit: out that is a file", "fit runs.csv --out=config.json", "out", "config.json"),
]

CASES = [*PLANS, *COMPILATION, *SWEEPS, *FITS]
