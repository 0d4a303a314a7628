# What a job asks of a cluster: memory and time that follow from the configuration. Time stays below a
# day and grows with every attempt, but for a training, which goes on in its next one.
import math

# Multiply-adds of the paper's networks for one image of 64 x 64, first grid 64 channels wide, in
# millions; `mg networks` counts them.
PAPER_COST = {"unet": 1240, "umg": 1910, "sg": 2490, "r_sg": 4920, "pmg": 1610, "r_pmg": 3170}
# The same of the paper's classifiers: of 32 x 32 with one layer a block and for every further one; of
# 224 x 224 by depth.
CIFAR_COST = {
    "vgg": (171, 407),
    "resnet": (266, 321),
    "mg": (117, 278),
    "r_mg": (460, 555),
    "pmg": (186, 282),
    "r_pmg": (468, 564),
}
IMAGENET_COST = {"r_mg": {34: 5760, 18: 2770}, "r_pmg_seg": {30: 9520, 52: 18270}}  # usual first
FIRST_WIDTH = {"vgg": 102}  # the paper's where it is not 64
# Multiply-adds a second of a modest GPU, and of one processor core without bfloat16.
GPU_SPEED, CORE_SPEED = 3e12, 1.5e10
GPU_STEP = 0.02  # seconds that launching the kernels of one step takes, however small they are
PYTHON_MB, CUDA_MB = 1000, 3000  # host memory of the libraries alone
MOST_MEMORY = 3  # times the estimate
DECODERS = 8  # processes that decode photographs for one GPU


def option(network, name, usual):
    """A network's option; the usual value where the configuration says none, or no such."""
    value = config["architectures"][network]["options"].get(name)
    return value if type(value) is type(usual) else usual


def first_width(network):
    """Channels of a network's first grid; the paper's where the configuration does not say."""
    width = config["architectures"][network]["options"].get("width")
    while isinstance(width, list) and width:
        width = width[0]
    return width if isinstance(width, int) else paper_width(network)  # a name stands for those too


def paper_width(network):
    """Channels of a network's first grid in the paper."""
    return FIRST_WIDTH.get(config["architectures"][network]["network"], 64)


def multiply_adds(task, network):
    """Roughly the multiply-adds of a network of the configuration for one image of a task."""
    name, layers = config["architectures"][network]["network"], option(network, "n_layer", 1)
    if family(task) == "imagenet":
        costs = IMAGENET_COST.get(name, IMAGENET_COST["r_pmg_seg"])
        paper = costs.get(option(network, "depth", next(iter(costs))), max(costs.values()))
        side = config["imagenet"]["crop"] / 224
    elif family(task) == "cifar":
        first, further = CIFAR_COST.get(name, CIFAR_COST["r_pmg"])
        paper, side = first + (layers - 1) * further, 1
    else:
        paper = PAPER_COST.get(name, max(PAPER_COST.values())) * layers
        side = config["data"]["canvas"] / 64
    return 1e6 * paper * (side * first_width(network) / paper_width(network)) ** 2


def examples(task, split):
    """Number of examples of a split; the paper's where the configuration does not say."""
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


def asked(step, resource, usual):
    """A resource of each job of a rule: the profile's word, else the usual."""
    for name, resources in workflow.resource_settings.overwrite_resources.items():
        # In a workflow that has this one as a module, the names may have a prefix.
        if (name == step or name.endswith(f"_{step}")) and resource in resources:
            try:
                return resources[resource].value
            except ValueError:
                sys.exit(f"profile: {resource} of {step} is an expression; allowed is a number")
    return usual


def asked_gpus(step):
    """GPUs of each job of a rule: the profile's word, else one if this machine has any."""
    return asked(step, "gpu", min(1, gpus()))


def processes():
    """Processes that train a network together: one per GPU, if the profile does not say."""
    return asked("train", "processes", max(1, asked_gpus("train")))


def check_processes():
    """Refuse a number of processes that cannot share a batch, before any job."""
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
    work = 3 * images * multiply_adds(wildcards.task, wildcards.network)
    return minutes("train", work, steps, threads)


def train_memory(wildcards, attempt):
    """Host memory of a training in MB: the data twice while they are read, then the activations."""
    if asked_gpus("train"):
        computing = CUDA_MB
    else:
        # A convolution of width w does 9 w multiply-adds for a value; three copies of it are kept.
        values = multiply_adds(wildcards.task, wildcards.network) / (
            9 * first_width(wildcards.network)
        )
        parts = max(batch_parts(wildcards.task, wildcards.network), processes())
        computing = training(wildcards.task, "batch") / parts * values * 12 / 1e6
    data = 2 * data_mb(wildcards.task, "train", "valid")
    # Not only want of memory ends an attempt, and there may be many.
    return math.ceil(PYTHON_MB + data + computing) * processes() * min(attempt, MOST_MEMORY)


def evaluate_minutes(wildcards, threads, attempt):
    """Time limit of an evaluation."""
    number = examples(wildcards.task, "test")
    if family(wildcards.task) == "imagenet" and config["imagenet"]["ten_crops"]:
        number *= 11  # the centre, and the ten
    work = number * multiply_adds(wildcards.task, wildcards.network)
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
    work = images * multiply_adds(wildcards.task, wildcards.network)
    return minutes("saliency", work, images / 100, threads, attempt)
