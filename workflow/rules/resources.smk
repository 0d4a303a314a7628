# What a job asks of a cluster: memory and time that follow from the configuration. Time stays below a
# day and grows with every attempt, but for a training, which goes on in its next one.
import functools
import math

# Multiply-adds a second of a modest GPU, and of one processor core without bfloat16.
GPU_SPEED, CORE_SPEED = 3e12, 1.5e10
GPU_STEP = 0.02  # seconds that launching the kernels of one step takes, however small they are
# Where nothing was counted, or not for a network that a target alone names: the most that the
# paper's networks cost for each pixel of their images.
MOST_COST = {
    "mnist": {"multiply_adds": 1.21e6, "outputs": 1670, "parameters": 1450},
    "cifar": {"multiply_adds": 2.11e6, "outputs": 1270, "parameters": 91300},
    "imagenet": {"multiply_adds": 3.65e5, "outputs": 218, "parameters": 1220},
}
# Four copies in float32: an output is also normalised, concatenated and has a gradient, a parameter
# has a gradient and an optimiser's two moments.
VALUE_MB = 16e-6
PYTHON_MB, CUDA_MB = 1000, 3000  # host memory of the libraries alone
MARGIN = 1.1  # of a training: of those on processors that were kept one took 1.09 of what follows
MOST_MEMORY = 3  # times the estimate
DECODERS = 8  # processes that decode photographs for one GPU
# What `mg` takes for resources that are words.
WORDS = {
    "device": ("auto", "cpu", "cuda", "cuda:N"),
    "execution": ("auto", "eager", "graph", "compiled"),
}
FOR_SEVERAL = {"device": "cuda", "execution": "eager"}  # processes of one training


def cost(task, network):
    """What a network costs for one image of a task, as `mg check` counted it."""
    if COSTS and network in COSTS[task]:
        return COSTS[task][network]
    sides = {"mnist": config["data"]["canvas"], "cifar": 32, "imagenet": config["imagenet"]["crop"]}
    pixels = sides[family(task)] ** 2
    return {name: pixels * most for name, most in MOST_COST[family(task)].items()}


@functools.cache
def examples(task, split):
    """Number of examples of a split; the paper's where the configuration does not say."""
    if config["data"]["mode"] == "own" and family(task) == "mnist":
        own = Path(placed(RESULTS), "data", task, f"{split}.h5")
        if number := configuration.number_of_images(own):
            return number
    paper = {"train": 50000, "valid": 10000, "test": 50000 if family(task) == "imagenet" else 10000}
    if task == "segmentation":
        paper = {"train": 10000, "valid": 1000, "test": 1000}
    return config["data"]["tasks"].get(task, {}).get(split, paper[split])


def data_mb(task, *splits):
    """Memory of the splits' images (float32) and targets (a byte per class and pixel)."""
    if family(task) == "imagenet":
        return 500  # the names of its files, and batches that are decoded ahead
    if family(task) == "cifar":
        number = sum(examples(task, split) for split in splits)
        return (number * 3 * 36**2 * 4 + 8 * 3072**2 * 4) / 1e6  # and the whitening matrix
    classes = 10 if task == "segmentation" else 1
    number = sum(examples(task, split) for split in splits)
    return number * config["data"]["canvas"] ** 2 * (4 + classes) / 1e6


def from_profile(step, resource):
    """What the profile says of a resource of a rule, as Snakemake holds it; None if nothing."""
    for name, resources in workflow.resource_settings.overwrite_resources.items():
        # In a workflow that has this one as a module, the names may have a prefix.
        if (name == step or name.endswith(f"_{step}")) and resource in resources:
            return resources[resource]


def asked(step, resource, usual):
    """The number that each job of a rule asks for, the usual one if the profile says none."""
    try:
        said = from_profile(step, resource)
        return usual if said is None else said.value
    except ValueError:
        sys.exit(f"profile: {resource} of {step} is an expression; allowed is a number")


def asked_gpus(step):
    """GPUs of each job of a rule: the profile's word, else one if this machine has any."""
    return asked(step, "gpu", min(1, gpus()))


def processes():
    """Processes that train a network together: one per GPU, if the profile does not say."""
    return asked("train", "processes", max(1, asked_gpus("train")))


def check_profile():
    """Refuse, before any job, what `mg` would refuse in each: words, and numbers of processes."""
    for resource, words in WORDS.items():
        pattern = "|".join(words).replace("N", r"\d+")
        for step in ("train", "evaluate", "saliency"):
            said = from_profile(step, resource)
            word = "auto" if said is None else str(said.raw).strip("'\"")
            # All else is an expression, whose value only a job knows.
            if re.fullmatch(r"[\w:.-]*", word) and not re.fullmatch(pattern, word):
                sys.exit(
                    f"profile: {resource} of {step} is {word or 'empty'}; allowed is one of"
                    f" {', '.join(words)}"
                )
            of_one = word.startswith("cuda:") or word in ("graph", "compiled")
            if step == "train" and of_one and processes() > 1:
                sys.exit(
                    f"profile: {resource} of {step} is {word}, which is for one process, not for"
                    f" {processes()}; allowed is {FOR_SEVERAL[resource]}"
                )
    if processes() < 1:
        sys.exit(f"profile: processes of train is {processes()}; allowed is at least 1")
    for task in TASKS:
        for network in NETWORKS:
            parts = batch_parts(task, network)
            parts = math.ceil(parts / processes()) * processes()
            if training(task, "batch") % parts:
                sys.exit(
                    f"profile: {processes()} processes cannot share the batch of"
                    f" {training(task, 'batch')} of {network} on {task} in {parts} equal parts;"
                    " allowed is another number of GPUs under train"
                )


def decoding_threads(wildcards):
    """Processor cores of a job: photographs are decoded by several, ahead of their use."""
    return DECODERS if family(wildcards.task) == "imagenet" else 1


def train_threads(wildcards):
    """Processor cores of a training."""
    return processes() * decoding_threads(wildcards)


def minutes(step, work, steps, threads, attempt=1):
    """Time limit for `work` multiply-adds in `steps` steps: twice the estimate and ten minutes."""
    if asked_gpus(step):
        seconds = work / (GPU_SPEED * asked_gpus(step)) + steps * GPU_STEP
    else:
        seconds = work / (CORE_SPEED * threads)
    return min(math.ceil(10 + 2 * seconds / 60) * attempt, 1440)


def train_minutes(wildcards, threads):
    """Time limit of a training, which goes on in its next attempt: a backward pass costs two forward."""
    steps = training(wildcards.task, "epochs") * training(wildcards.task, "iterations")
    images = steps * training(wildcards.task, "batch")
    work = 3 * images * cost(wildcards.task, wildcards.network)["multiply_adds"]
    return minutes("train", work, steps, threads)


def train_memory(wildcards, attempt):
    """Host memory of a training in MB: the data twice while they are read, then what is computed."""
    if asked_gpus("train"):
        computing = CUDA_MB
    else:
        parts = max(batch_parts(wildcards.task, wildcards.network), processes())
        images = training(wildcards.task, "batch") / parts
        values = cost(wildcards.task, wildcards.network)
        computing = VALUE_MB * (images * values["outputs"] + values["parameters"])
    data = 2 * data_mb(wildcards.task, "train", "valid")
    # Not only want of memory ends an attempt, and there may be many.
    alone = math.ceil(MARGIN * (PYTHON_MB + data + computing))
    return alone * processes() * min(attempt, MOST_MEMORY)


def evaluate_minutes(wildcards, threads, attempt):
    """Time limit of an evaluation."""
    number = examples(wildcards.task, "test")
    if family(wildcards.task) == "imagenet" and config["imagenet"]["ten_crops"]:
        number *= 11  # the centre, and the ten
    work = number * cost(wildcards.task, wildcards.network)["multiply_adds"]
    return minutes("evaluate", work, number / 100, threads, attempt)


def evaluate_memory(wildcards, attempt):
    """Host memory of an evaluation in MB: the test set, its predictions, and work on both."""
    return answering_memory("evaluate", wildcards.task) * attempt


def saliency_memory(wildcards, attempt):
    """Host memory of saliency maps in MB, at most that of an evaluation."""
    return answering_memory("saliency", wildcards.task) * attempt


def answering_memory(step, task):
    """Host memory of a step that computes a network's answers to a test set."""
    computing = CUDA_MB if asked_gpus(step) else PYTHON_MB
    return math.ceil(PYTHON_MB + computing + 3 * data_mb(task, "test"))


def saliency_minutes(wildcards, threads, attempt):
    """Time limit of saliency maps: one forward pass for each position of the window."""
    settings = config["saliency"]
    positions = (config["data"]["canvas"] // settings["stride"]) ** 2
    images = settings["examples"] * positions
    work = images * cost(wildcards.task, wildcards.network)["multiply_adds"]
    return minutes("saliency", work, images / 100, threads, attempt)
