"""The two networks of Shu & Zhu (AAAI-19) in PyTorch, for evaluation: names of parameters as in the
files of weights."""
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, relu


def bn(channels):
    return nn.BatchNorm2d(channels, eps=1e-3)


class Bottleneck(nn.Module):
    def __init__(self, before, middle, behind, stride, first):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, middle, 1, stride), bn(middle)
        self.conv2, self.bn2 = nn.Conv2d(middle, middle, 3, padding=1), bn(middle)
        self.conv3, self.bn3 = nn.Conv2d(middle, behind, 1), bn(behind)
        self.short = nn.Sequential(nn.Conv2d(before, behind, 1, stride), bn(behind)) if first else nn.Identity()

    def forward(self, x):
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        return relu(self.bn3(self.conv3(y)) + self.short(x))


class ResNet50(nn.Module):
    def __init__(self, channels, side, width=64):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 3, padding=1), bn(width)
        stages, before = [], width
        for i, count in enumerate([3, 4, 6, 3]):
            middle, behind = width << i, 4 * width << i
            stride = 1 if i == 0 else 2
            blocks = [Bottleneck(behind if j else before, middle, behind, 1 if j else stride, j == 0) for j in range(count)]
            stages.append(nn.Sequential(*blocks))
            before = behind
        self.stages = nn.Sequential(*stages)
        self.fc = nn.Linear(before * (-(-side // 8) // 2) ** 2, 10)

    def forward(self, x):
        x = self.stages(relu(self.bn1(self.conv1(x))))
        return self.fc(avg_pool2d(x, 2).flatten(1))


class DenseLayer(nn.Module):
    def __init__(self, before, growth=32):
        super().__init__()
        self.bn1, self.conv1 = bn(before), nn.Conv2d(before, 4 * growth, 1)
        self.bn2, self.conv2 = bn(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1)

    def forward(self, x):
        y = self.conv1(relu(self.bn1(x)))
        return torch.cat([x, self.conv2(relu(self.bn2(y)))], 1)


class Transition(nn.Module):
    def __init__(self, before):
        super().__init__()
        self.bn, self.conv = bn(before), nn.Conv2d(before, before // 2, 1)

    def forward(self, x):
        return avg_pool2d(self.conv(relu(self.bn(x))), 2)


class DenseNet121(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, 64, 3, padding=1), bn(64)
        body, width = [], 64
        for i, count in enumerate([6, 12, 24, 16]):
            body += [DenseLayer(width + 32 * j) for j in range(count)]
            width += 32 * count
            if i < 3:
                body.append(Transition(width))
                width //= 2
        self.body, self.bn, self.fc = nn.Sequential(*body), bn(width), nn.Linear(width, 10)

    def forward(self, x):
        x = self.body(relu(self.bn1(self.conv1(x))))
        return self.fc(relu(self.bn(x)).mean((2, 3)))


def build(name, channels, side):
    """resnet50, resnet50wN (of width N) or densenet121, in evaluation, no parameter of which wants
    a gradient."""
    if name == "densenet121":
        network = DenseNet121(channels)
    elif name.startswith("resnet50"):
        network = ResNet50(channels, side, int(name.removeprefix("resnet50").removeprefix("w") or 64))
    else:
        raise SystemExit(f"no network is called {name}")
    return network.eval().requires_grad_(False)
