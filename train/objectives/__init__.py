"""What methods are made of besides networks: losses, memories, and how clips are cut for them.

global_local  L_g and L_l of GLCM
memory_bank   a vector for every clip, and noise-contrastive estimation against them (AVID)
agreement     positives of other clips: those alike in both modalities (CMA)
queues        vectors of earlier batches, and the neighbours among them (MoCo, tempssl)
contrast      contrast with several weighted positives (tempssl)
temporal      speeds, directions and orders of two views of a clip (tempssl)
draws         random numbers by clip and count, the same on any rank and after any resume
"""
