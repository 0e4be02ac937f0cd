"""Image models of latent diffusion in diffusers' layout: Stable Diffusion 1.x, 2.x and XL, and DiT."""
