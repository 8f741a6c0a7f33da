"""Descriptors of products that are made of a parameter: seen in machine code where the assembler mixed registers up."""

from __future__ import annotations

from attndsl.codegen.descriptors import misread

SOUND = """
        /*0010*/                   UIADD3 UR15, UR6, 0x4000, URZ ;      /* 0x0000400006077890 */
        /*0020*/                   USHF.R.U32.HI UR15, URZ, 0x4, UR15 ; /* 0x00000004ff0f7899 */
        /*0030*/                   USGXT.U32 UR14, UR15, 0xe ;          /* 0x0000000e0f0e789a */
        /*0040*/                   UIADD3 UR10, UP0, UR14, 0x2, URZ ;   /* 0x000000020e0a7890 */
        /*0050*/                   HGMMA.64x64x16.F32 R120, R28, gdesc[UR12], R120 ;      /* 0x00e0000c1c787df0 */
        /*0060*/                   HGMMA.64x64x16.F32 R120, R24, gdesc[UR8], R120, gsb0 ; /* 0x00e0000818787df0 */
        /*0070*/                   HGMMA.64x32x16.F32 R24, gdesc[UR8], RZ, !UPT ;         /* 0x006000001c1879f0 */
"""


def test_addresses_of_shared_memory_are_sound() -> None:
    assert misread(SOUND) == []


def test_a_register_taken_before_the_address_is_in_it() -> None:
    early = SOUND.replace("USGXT.U32 UR14, UR15, 0xe", "ULDC UR14, c[0x0][0x2d8]")
    assert misread(early) == [
        "0050: HGMMA.64x64x16.F32 R120, R28, gdesc[UR12], R120",
        "0060: HGMMA.64x64x16.F32 R120, R24, gdesc[UR8], R120, gsb0",
        "0070: HGMMA.64x32x16.F32 R24, gdesc[UR8], RZ, !UPT",
    ]


def test_a_wide_load_of_parameters_fills_two_registers() -> None:
    early = SOUND.replace("USGXT.U32 UR14, UR15, 0xe", "ULDC.64 UR13, c[0x0][0x2d8]")
    assert misread(early)


def test_the_left_tile_has_a_descriptor_where_it_is_in_memory() -> None:
    left = SOUND.replace("UIADD3 UR15, UR6, 0x4000, URZ", "ULDC UR8, c[0x0][0x210]")
    assert misread(left) == ["0070: HGMMA.64x32x16.F32 R24, gdesc[UR8], RZ, !UPT"]
