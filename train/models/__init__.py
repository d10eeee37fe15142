"""The networks: each file is one encoder or one way to pool, without any loss.

    video       the paths of GLCM, 3D ResNets; stages by name         audio      its mel network
    attention   attention maps and pooling by them                     padding    ends of a clip
    r2plus1d    AVID's R(2+1)D            audio2d    its spectrogram network
    resnet3d    R3D and R(2+1)D           resnet2d   ResNet-34 on spectrograms (tempssl)
    small3d     five 3D convolutions      waveform   1D convolutions        coattention   its blocks
    video2d3d   DPC's ResNet              recurrent  its ConvGRU
    avslowfast  slow, fast and sound, with lateral connections
    spectrogram waveform -> log power     standard   bins to mean 0 and deviation 1
    syncnorm    BatchNorm over the rows of all ranks

The methods of `train/methods/` put them together.
"""
